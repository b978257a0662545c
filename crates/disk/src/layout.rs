use std::ops::Range;

use crate::table::ENTRIES_SECTORS;
use crate::{Error, SECTOR};

/// Every partition begins and ends at a multiple of this many bytes, so that the grid of 512 KiB blocks and every
/// disk's own pages fall on partition boundaries.
pub const ALIGNMENT: u64 = block::MIB;

/// Where partitions of the given sizes lie on a disk of `size` bytes, in bytes and in the order given, the first at
/// 1 MiB. Sizes are rounded up to whole MiB; `None`, for the last one only, takes the rest.
pub fn layout(size: u64, sizes: &[Option<u64>]) -> Result<Vec<Range<u64>>, Error> {
    if !size.is_multiple_of(SECTOR) {
        return Err(Error::NotWholeSectors { size });
    }
    // The backup table takes the disk's end; what is left of its MiB stays empty.
    let backup = (ENTRIES_SECTORS + 1) * SECTOR;
    let end = size.saturating_sub(backup) / ALIGNMENT * ALIGNMENT;
    let mut ranges = Vec::with_capacity(sizes.len());
    let mut start = ALIGNMENT;
    for (index, wanted) in sizes.iter().enumerate() {
        if wanted.is_none() && index + 1 != sizes.len() {
            return Err(Error::RestNotLast { index, count: sizes.len() });
        }
        let rest = end.saturating_sub(start).max(ALIGNMENT);
        let len = wanted.unwrap_or(rest);
        if len == 0 {
            return Err(Error::EmptyPartition { index });
        }
        let stop = len.checked_next_multiple_of(ALIGNMENT).and_then(|len| start.checked_add(len));
        let stop = stop.ok_or(Error::TooSmall { needed: u64::MAX, size })?;
        ranges.push(start..stop);
        start = stop;
    }
    if start > end {
        return Err(Error::TooSmall { needed: start.saturating_add(backup), size });
    }
    Ok(ranges)
}

#[cfg(test)]
mod tests {
    use block::{GIB, MIB};
    use proptest::prelude::*;

    use super::*;
    use crate::{BIOS_BOOT_SIZE, EFI_SYSTEM_SIZE};

    #[test]
    fn the_usual_disk_of_4_gib() {
        let ranges = layout(4 * GIB, &[Some(BIOS_BOOT_SIZE), Some(EFI_SYSTEM_SIZE), None]).unwrap();
        assert_eq!(ranges, [MIB..2 * MIB, 2 * MIB..66 * MIB, 66 * MIB..4095 * MIB]);
    }

    #[test]
    fn what_does_not_fit_is_refused_with_the_size_that_would_do() {
        let sizes = [Some(BIOS_BOOT_SIZE), Some(EFI_SYSTEM_SIZE), None];
        let Err(Error::TooSmall { needed, .. }) = layout(10 * MIB, &sizes) else { panic!("must not fit") };
        assert_eq!(needed, 67 * MIB + 33 * 512);
        assert!(layout(needed, &sizes).is_ok());
        assert!(matches!(layout(needed - 512, &sizes), Err(Error::TooSmall { .. })));
        assert!(matches!(layout(0, &[]), Err(Error::TooSmall { .. })));
        assert!(matches!(layout(GIB, &[Some(u64::MAX)]), Err(Error::TooSmall { .. })));
        assert!(matches!(layout(GIB + 1, &[]), Err(Error::NotWholeSectors { .. })));
        assert!(matches!(layout(GIB, &[None, Some(MIB)]), Err(Error::RestNotLast { index: 0, count: 2 })));
        assert!(matches!(layout(GIB, &[Some(0)]), Err(Error::EmptyPartition { index: 0 })));
    }

    proptest! {
        #[test]
        fn ranges_are_aligned_and_follow_each_other(
            sectors in 4096u64..1 << 26,
            sizes in prop::collection::vec(1u64..20 * MIB, 0..6),
            rest in any::<bool>(),
        ) {
            let size = sectors * SECTOR;
            let mut wanted: Vec<_> = sizes.into_iter().map(Some).collect();
            if rest {
                wanted.push(None);
            }
            match layout(size, &wanted) {
                Err(Error::TooSmall { needed, .. }) => prop_assert!(needed > size),
                Err(other) => prop_assert!(false, "{}", other),
                Ok(ranges) => {
                    let mut at = MIB;
                    for (range, wanted) in ranges.iter().zip(&wanted) {
                        prop_assert_eq!(range.start, at);
                        prop_assert!(range.end % MIB == 0 && range.end - range.start >= wanted.unwrap_or(MIB));
                        at = range.end;
                    }
                    prop_assert!(at + 33 * SECTOR <= size);
                }
            }
        }
    }
}
