use crate::{Error, SECTOR};

/// The most that core.img may have, in bytes: the first stage loads it from 0x8200 up and GRUB leaves off at 0x78000
/// with a kernel linked to 0x9000.
pub const CORE_IMG_MAX: u64 = 0x78000 - 0x9000;

/// GRUB's two images for BIOS boot, as the distribution and grub-mkimage make them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BiosBoot {
    /// i386-pc/boot.img, 512 bytes: the code of the disk's first sector.
    pub boot_img: Vec<u8>,
    /// What `grub-mkimage -O i386-pc` wrote: diskboot.img, decompressor, kernel and modules.
    pub core_img: Vec<u8>,
}

/// boot.img: the first sector of core.img, u64.
const KERNEL_SECTOR: usize = 0x5C;
/// boot.img: the BIOS drive to load from; 0xFF is the one that was booted.
const BOOT_DRIVE: usize = 0x64;
/// boot.img: a jump over a check of the drive number, which hard disks want.
const DRIVE_CHECK: usize = 0x66;
/// The disk signature and partition table, which are not boot.img's.
const NOT_CODE: std::ops::Range<usize> = 0x1B8..0x1FE;
/// A FAT volume's parameters, which boot.img leaves room for and a partitioned disk does not have.
const BIOS_PARAMETERS: std::ops::Range<usize> = 0x03..0x5A;

/// One run of core.img's sectors, at the end of its first sector and growing downwards: start u64, length u16 in
/// sectors, memory segment u16.
const LIST_ENTRY: usize = 12;
/// Where in memory core.img's second sector goes, as a real-mode segment.
const LOAD_SEGMENT: u16 = 0x820;

impl BiosBoot {
    /// Puts the boot code into the disk's first sector, around its signature and partition table. `core_start` is
    /// the first sector of core.img on the disk.
    pub(crate) fn patch_mbr(&self, mbr: &mut [u8], core_start: u64) -> Result<(), Error> {
        let bad = |reason| Err(Error::BadBootImg { reason });
        if self.boot_img.len() as u64 != SECTOR {
            return bad("it does not have 512 bytes");
        }
        if self.boot_img[0x1FE..] != [0x55, 0xAA] {
            return bad("its last two bytes are not 55 AA");
        }
        if self.boot_img[0x5A..0x5C] != [0x00, 0x80] || self.boot_img[DRIVE_CHECK] != 0xEB {
            return bad("it does not load to 0x8000 or has no drive check");
        }
        let mut code = self.boot_img.clone();
        code[BIOS_PARAMETERS].fill(0);
        code[KERNEL_SECTOR..KERNEL_SECTOR + 8].copy_from_slice(&core_start.to_le_bytes());
        code[BOOT_DRIVE] = 0xFF;
        code[DRIVE_CHECK..DRIVE_CHECK + 2].fill(0x90);
        mbr[..NOT_CODE.start].copy_from_slice(&code[..NOT_CODE.start]);
        mbr[NOT_CODE.end..SECTOR as usize].copy_from_slice(&code[NOT_CODE.end..]);
        Ok(())
    }

    /// core.img in whole sectors, as it is to lie at sector `core_start`: its list names the one run of sectors that
    /// follows the first.
    pub(crate) fn patched_core(&self, core_start: u64, room: u64) -> Result<Vec<u8>, Error> {
        let bad = |reason| Err(Error::BadCoreImg { reason });
        let size = self.core_img.len() as u64;
        let limit = room.min(CORE_IMG_MAX);
        if size > limit {
            return Err(Error::CoreImgTooLarge { size, limit });
        }
        if size <= SECTOR {
            return bad("it has no second sector");
        }
        let mut core = self.core_img.clone();
        core.resize(core.len().next_multiple_of(SECTOR as usize), 0);
        let first = SECTOR as usize - LIST_ENTRY;
        if core[first + 10..first + 12] != LOAD_SEGMENT.to_le_bytes() {
            return bad("the list of its sectors does not load to segment 0x820");
        }
        let mut entry = first;
        while core[entry + 8..entry + 10] != [0, 0] {
            core[entry..entry + LIST_ENTRY].fill(0);
            if entry < 2 * LIST_ENTRY {
                return bad("the list of its sectors has no end");
            }
            entry -= LIST_ENTRY;
        }
        let sectors = (core.len() as u64 / SECTOR - 1) as u16;
        core[first..first + 8].copy_from_slice(&(core_start + 1).to_le_bytes());
        core[first + 8..first + 10].copy_from_slice(&sectors.to_le_bytes());
        core[first + 10..first + 12].copy_from_slice(&LOAD_SEGMENT.to_le_bytes());
        core[first - LIST_ENTRY..first].fill(0);
        Ok(core)
    }
}
