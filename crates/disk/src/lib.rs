//! GPT disks: partitions, the EFI system partition (FAT) and boot loaders, one BlockMap a volume.
