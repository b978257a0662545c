use std::path::Path;

use block::{Content, GIB, MIB, derived_uuid};
use proptest::prelude::*;

use super::*;
use crate::test_tools::{check_golden, hex_lines, run, tool, write_sparse};
use crate::{
    BIOS_BOOT_NUMBER, BIOS_BOOT_SIZE, CORE_IMG_MAX, EFI_SYSTEM_NUMBER, EFI_SYSTEM_SIZE, ROOT_NUMBER,
};

const FILLED: Origin = Origin::Structure("test");

fn partition(number: u32, kind: PartitionKind, role: &str, size: Option<u64>) -> Partition {
    let uuid = derived_uuid("hello-web", "/dev/xvda", role);
    Partition { number, kind, name: role.to_owned(), uuid, size, content: BlockMap::empty(0) }
}

fn usual_plan(size: u64) -> Plan {
    let partitions = vec![
        partition(BIOS_BOOT_NUMBER, PartitionKind::BiosBoot, "bios", Some(BIOS_BOOT_SIZE)),
        partition(EFI_SYSTEM_NUMBER, PartitionKind::EfiSystem, "esp", Some(EFI_SYSTEM_SIZE)),
        partition(ROOT_NUMBER, PartitionKind::LinuxRootX86_64, "root", None),
    ];
    Plan { size, disk_uuid: derived_uuid("hello-web", "/dev/xvda", "disk"), partitions }
}

/// 512 bytes with what boot.img has at the places that matter, and a core.img of `sectors` sectors less one byte
/// with a list as grub-mkimage leaves it: from sector 2, all but the first.
fn images(sectors: usize) -> BiosBoot {
    let mut boot_img = vec![0xCC; 512];
    boot_img[0x5A..0x66].copy_from_slice(&[0x00, 0x80, 1, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFA]);
    boot_img[0x66..0x68].copy_from_slice(&[0xEB, 0x05]);
    boot_img[0x1FE..].copy_from_slice(&[0x55, 0xAA]);
    let mut core_img: Vec<u8> = (0..sectors * 512 - 1).map(|at| (at / 512) as u8 + 1).collect();
    core_img[512 - 24..512].fill(0);
    core_img[512 - 12] = 2;
    core_img[512 - 4..512 - 2].copy_from_slice(&(sectors as u16 - 1).to_le_bytes());
    core_img[512 - 2..512].copy_from_slice(&[0x20, 0x08]);
    BiosBoot { boot_img, core_img }
}

fn read(map: &BlockMap, offset: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    map.read_at(offset, &mut bytes).unwrap();
    bytes
}

/// What sgdisk finds wrong; it must find nothing, and no misalignment.
fn sgdisk_verify(image: &Path) {
    let said = run(tool("sgdisk").arg("-v").arg(image));
    assert!(said.contains("No problems found"), "{said}");
    for word in ["Caution", "Warning", "Problem:", "Error"] {
        assert!(!said.contains(word), "{said}");
    }
}

#[test]
fn the_usual_disk_is_clean_to_sgdisk_with_its_numbers_names_and_types() {
    let map = gpt(&usual_plan(4 * GIB), Some(&images(250))).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("xvda.raw");
    write_sparse(&map, &image);
    sgdisk_verify(&image);
    let said = run(tool("sgdisk").args(["-p", "-i", "1", "-i", "14", "-i", "15"]).arg(&image));
    let lines: Vec<Vec<&str>> = said.lines().map(|line| line.split_whitespace().collect()).collect();
    for row in [
        ["1", "135168", "8386559", "3.9", "GiB", "8304", "root"],
        ["14", "2048", "4095", "1024.0", "KiB", "EF02", "bios"],
        ["15", "4096", "135167", "64.0", "MiB", "EF00", "esp"],
    ] {
        assert!(lines.iter().any(|line| line == &row), "{row:?} is not in {said}");
    }
    for uuid in usual_plan(4 * GIB).partitions.iter().map(|part| part.uuid) {
        let uuid = block::format_uuid(uuid).to_uppercase();
        assert!(said.contains(&format!("Partition unique GUID: {uuid}")), "{uuid} is not in {said}");
    }
    assert!(said.contains("Disk identifier (GUID): "), "{said}");
    assert!(said.contains(&block::format_uuid(usual_plan(1).disk_uuid).to_uppercase()), "{said}");
}

#[test]
fn on_a_larger_disk_the_backup_moves_and_the_root_partition_grows() {
    let map = gpt(&usual_plan(4 * GIB), None).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("xvda.raw");
    write_sparse(&map, &image);
    std::fs::File::options().write(true).open(&image).unwrap().set_len(40 * GIB).unwrap();
    run(tool("sgdisk").arg("-e").arg(&image));
    sgdisk_verify(&image);
    // What growpart does: the same partition once more, from the same place to the end.
    let root = derived_uuid("hello-web", "/dev/xvda", "root");
    let guid = format!("-u1:{}", block::format_uuid(root));
    run(tool("sgdisk").args(["-d1", "-n1:135168:0", "-t1:8304", guid.as_str(), "-c1:root"]).arg(&image));
    // sgdisk itself ends it at the last sector, not at a whole MiB, and says so; there must be no problem.
    let said = run(tool("sgdisk").arg("-v").arg(&image));
    assert!(said.contains("No problems found"), "{said}");
    let disk = gpt::GptConfig::new().only_valid_headers(true).open(&image).unwrap();
    let grown = &disk.partitions()[&ROOT_NUMBER];
    assert_eq!(grown.part_guid.into_bytes(), root);
    assert_eq!(grown.first_lba, 66 * MIB / SECTOR);
    assert!(grown.last_lba > (40 * GIB - 2 * MIB) / SECTOR);
}

#[test]
fn boot_code_goes_around_the_partition_table() {
    let boot = images(250);
    let plain = gpt(&usual_plan(4 * GIB), None).unwrap();
    let map = gpt(&usual_plan(4 * GIB), Some(&boot)).unwrap();
    let (mbr, protective) = (read(&map, 0, 512), read(&plain, 0, 512));
    assert_eq!(mbr[0x1B8..], protective[0x1B8..], "signature and table stay");
    assert_eq!(mbr[..3], boot.boot_img[..3]);
    assert!(mbr[3..0x5A].iter().all(|byte| *byte == 0), "no FAT parameters on a partitioned disk");
    assert_eq!(mbr[0x5C..0x64], 2048u64.to_le_bytes(), "core.img's first sector");
    assert_eq!(mbr[0x64], 0xFF, "the booted drive");
    assert_eq!(mbr[0x66..0x68], [0x90, 0x90], "the drive check is on");
    assert_eq!(mbr[0x68..0x1B8], boot.boot_img[0x68..0x1B8]);
    assert_eq!(read(&map, 512, 33 * 512), read(&plain, 512, 33 * 512));

    let core = read(&map, MIB, 250 * 512);
    assert_eq!(core[..488], boot.core_img[..488]);
    assert_eq!(core[488..500], [0; 12], "the list ends");
    assert_eq!(core[500..508], 2049u64.to_le_bytes());
    assert_eq!(core[508..512], [249, 0, 0x20, 0x08]);
    assert_eq!(core[512..250 * 512 - 1], boot.core_img[512..]);
    assert_eq!(core[250 * 512 - 1], 0, "the last sector is filled up");
}

#[test]
fn what_is_not_grub_is_refused() {
    let plan = usual_plan(4 * GIB);
    let with = |change: &dyn Fn(&mut BiosBoot)| {
        let mut boot = images(250);
        change(&mut boot);
        gpt(&plan, Some(&boot))
    };
    assert!(with(&|_| ()).is_ok());
    assert!(matches!(with(&|boot| boot.boot_img.truncate(511)), Err(Error::BadBootImg { .. })));
    assert!(matches!(with(&|boot| boot.boot_img[0x1FE] = 0), Err(Error::BadBootImg { .. })));
    assert!(matches!(with(&|boot| boot.boot_img[0x66] = 0), Err(Error::BadBootImg { .. })));
    assert!(matches!(with(&|boot| boot.core_img.truncate(512)), Err(Error::BadCoreImg { .. })));
    assert!(matches!(with(&|boot| boot.core_img[510] = 0), Err(Error::BadCoreImg { .. })));
    assert!(matches!(with(&|boot| boot.core_img[..510].fill(1)), Err(Error::BadCoreImg { .. })));
    let Err(Error::CoreImgTooLarge { limit, .. }) = with(&|boot| boot.core_img.resize(500_000, 1)) else {
        panic!("must be too large")
    };
    assert_eq!(limit, CORE_IMG_MAX);
    // A list of several runs, as an earlier installation leaves it, is replaced by the one run.
    let again = with(&|boot| {
        boot.core_img[476..500].copy_from_slice(&[7, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 9].repeat(2));
        boot.core_img[464..476].fill(0);
    });
    let core = read(&again.unwrap(), MIB, 512);
    assert!(core[464..500].iter().all(|byte| *byte == 0));
    assert_eq!(core[508..512], [249, 0, 0x20, 0x08]);
}

#[test]
fn plans_that_do_not_work_are_refused() {
    let with = |change: &dyn Fn(&mut Plan)| {
        let mut plan = usual_plan(4 * GIB);
        change(&mut plan);
        gpt(&plan, None)
    };
    assert!(matches!(with(&|plan| plan.partitions[0].number = 0), Err(Error::BadNumber { number: 0, .. })));
    assert!(matches!(
        with(&|plan| plan.partitions[0].number = 129),
        Err(Error::BadNumber { number: 129, .. })
    ));
    assert!(matches!(with(&|plan| plan.partitions[0].number = 15), Err(Error::BadNumber { number: 15, .. })));
    assert!(matches!(with(&|plan| plan.partitions[0].uuid = [0; 16]), Err(Error::BadUuid { .. })));
    assert!(matches!(with(&|plan| plan.partitions[0].uuid = plan.disk_uuid), Err(Error::BadUuid { .. })));
    assert!(matches!(
        with(&|plan| plan.partitions[0].name = "ü".repeat(37)),
        Err(Error::BadName { units: 37, .. })
    ));
    assert!(matches!(
        with(&|plan| plan.partitions[1].content = BlockMap::empty(EFI_SYSTEM_SIZE + 1)),
        Err(Error::ContentTooLarge { number: EFI_SYSTEM_NUMBER, .. })
    ));
    let mut filled = usual_plan(4 * GIB);
    let mut builder = BlockMapBuilder::new();
    builder.push_all(0, Content::from_bytes(vec![1]), FILLED);
    filled.partitions[0].content = builder.finish(1).unwrap();
    let boot = images(9);
    assert!(matches!(gpt(&filled, Some(&boot)), Err(Error::NoBiosBootPartition { count: 1, filled: 1 })));
    filled.partitions.remove(0);
    assert!(matches!(gpt(&filled, Some(&boot)), Err(Error::NoBiosBootPartition { count: 0, .. })));
}

#[test]
fn bytes_on_disk_stay_as_they_are() {
    check_golden("gpt.hex", &hex_lines(&gpt(&usual_plan(4 * GIB), Some(&images(2))).unwrap()));
}

#[test]
fn a_disk_beyond_2_tib_protects_what_an_mbr_can_name() {
    let map = gpt(&usual_plan(3 * 1024 * GIB), None).unwrap();
    assert_eq!(read(&map, 446 + 12, 4), [0xFF; 4]);
    assert!(map.data_bytes() < 64 * 1024);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn any_plan_is_clean_to_sgdisk_and_parses_back(
        numbers in prop::collection::btree_set(1u32..=128, 1..8).prop_map(|set| set.into_iter().collect::<Vec<_>>()).prop_shuffle(),
        sizes in prop::collection::vec(1u64..9 * MIB, 8),
        kinds in prop::collection::vec(0usize..5, 8),
        names in prop::collection::vec("[a-zA-Z0-9 é€😀_.-]{0,18}", 8),
        rest in any::<bool>(),
        spare in 0u64..4096,
    ) {
        let kinds_of = [
            (PartitionKind::BiosBoot, "21686148-6449-6E6F-744E-656564454649"),
            (PartitionKind::EfiSystem, "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"),
            (PartitionKind::LinuxRootX86_64, "4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709"),
            (PartitionKind::LinuxRootAarch64, "B921B045-1DF0-41C3-AF44-4C6F280D3FAE"),
            (PartitionKind::LinuxFilesystem, "0FC63DAF-8483-4772-8E79-3D69D8477DE4"),
        ];
        let count = numbers.len();
        let mut partitions = Vec::new();
        for (index, number) in numbers.iter().enumerate() {
            let size = (!rest || index + 1 < count).then_some(sizes[index]);
            let mut part = partition(*number, kinds_of[kinds[index]].0, &format!("role {index}"), size);
            part.name = names[index].clone();
            let mut builder = BlockMapBuilder::new();
            builder.push_all(0, Content::from_bytes(vec![index as u8 + 1]), FILLED);
            part.content = builder.finish(1).unwrap();
            partitions.push(part);
        }
        let size = 80 * MIB + spare * SECTOR;
        let plan = Plan { size, disk_uuid: derived_uuid("any", "/dev/xvda", "disk"), partitions };
        let map = gpt(&plan, None).unwrap();
        let ranges = layout(size, &plan.partitions.iter().map(|part| part.size).collect::<Vec<_>>()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("disk.raw");
        write_sparse(&map, &image);
        sgdisk_verify(&image);
        let disk = gpt::GptConfig::new().only_valid_headers(true).open(&image).unwrap();
        prop_assert_eq!(disk.guid().into_bytes(), plan.disk_uuid);
        prop_assert_eq!(disk.partitions().len(), count);
        for ((index, part), range) in plan.partitions.iter().enumerate().zip(&ranges) {
            let found = &disk.partitions()[&part.number];
            prop_assert_eq!(&found.name, &part.name);
            prop_assert_eq!(found.part_guid.into_bytes(), part.uuid);
            prop_assert_eq!(found.part_type_guid.guid.to_string().to_uppercase(), kinds_of[kinds[index]].1);
            prop_assert_eq!(found.first_lba * SECTOR..(found.last_lba + 1) * SECTOR, range.clone());
            prop_assert_eq!(read(&map, range.start, 2), vec![index as u8 + 1, 0]);
        }
        prop_assert_eq!(gpt(&plan, None).unwrap(), map);
    }
}
