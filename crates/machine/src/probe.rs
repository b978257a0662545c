use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use crate::{Accel, Launcher, Programs};

/// A processor that works says the word within a fraction of a second.
const WORD_LIMIT: Duration = Duration::from_secs(3);
/// The word, as a real kernel's text on the serial port.
const WORD: &str = "guest runs\r\n";

/// A boot sector that enters 64-bit mode, moves its word (15 bytes at most) through an SSE register and writes it
/// to the first serial port: what every kernel needs of a processor and of the firmware before it can say anything.
pub fn boot_sector(word: &str) -> [u8; 512] {
    #[rustfmt::skip]
    const CODE: &[&[u8]] = &[
        &[0xfa],                                           // cli
        &[0x66, 0x31, 0xc0],                               // xor eax, eax
        &[0x8e, 0xd8],                                     // mov ds, ax
        &[0x8e, 0xc0],                                     // mov es, ax
        &[0x8e, 0xd0],                                     // mov ss, ax
        &[0xbc, 0x00, 0x7c],                               // mov sp, 0x7c00
        // Three page tables from 0x1000 on map the first 2 MiB to themselves.
        &[0x66, 0xbf, 0x00, 0x10, 0x00, 0x00],             // mov edi, 0x1000
        &[0x0f, 0x22, 0xdf],                               // mov cr3, edi
        &[0xb9, 0x00, 0x0c],                               // mov cx, 0x0c00
        &[0xfc],                                           // cld
        &[0x66, 0xf3, 0xab],                               // rep stosd
        &[0xc7, 0x06, 0x00, 0x10, 0x03, 0x20],             // mov word [0x1000], 0x2003
        &[0xc7, 0x06, 0x00, 0x20, 0x03, 0x30],             // mov word [0x2000], 0x3003
        &[0xc7, 0x06, 0x00, 0x30, 0x83, 0x00],             // mov word [0x3000], 0x0083
        // Physical address extension, SSE; long mode; paging and protection.
        &[0x0f, 0x20, 0xe0],                               // mov eax, cr4
        &[0x66, 0x0d, 0x20, 0x06, 0x00, 0x00],             // or eax, 0x620
        &[0x0f, 0x22, 0xe0],                               // mov cr4, eax
        &[0x66, 0xb9, 0x80, 0x00, 0x00, 0xc0],             // mov ecx, 0xc0000080
        &[0x0f, 0x32],                                     // rdmsr
        &[0x0d, 0x00, 0x01],                               // or ax, 0x100
        &[0x0f, 0x30],                                     // wrmsr
        &[0x0f, 0x01, 0x16, 0xa5, 0x7c],                   // lgdt [0x7ca5]
        &[0x0f, 0x20, 0xc0],                               // mov eax, cr0
        &[0x24, 0xfb],                                     // and al, 0xfb
        &[0x66, 0x0d, 0x03, 0x00, 0x00, 0x80],             // or eax, 0x80000003
        &[0x0f, 0x22, 0xc0],                               // mov cr0, eax
        &[0xea, 0x60, 0x7c, 0x08, 0x00],                   // jmp 8:0x7c60
        // 0x7c60, in 64 bits.
        &[0xf3, 0x0f, 0x6f, 0x04, 0x25, 0x00, 0x7d, 0, 0], // movdqu xmm0, [0x7d00]
        &[0x66, 0x0f, 0xeb, 0xc0],                         // por xmm0, xmm0
        &[0xf3, 0x0f, 0x7f, 0x04, 0x25, 0x00, 0x50, 0, 0], // movdqu [0x5000], xmm0
        &[0xbe, 0x00, 0x50, 0x00, 0x00],                   // mov esi, 0x5000
        &[0xba, 0xfd, 0x03, 0x00, 0x00],                   // next: mov edx, 0x3fd
        &[0xec],                                           // full: in al, dx
        &[0xa8, 0x20],                                     // test al, 0x20
        &[0x74, 0xfb],                                     // jz full
        &[0xac],                                           // lodsb
        &[0x84, 0xc0],                                     // test al, al
        &[0x74, 0x08],                                     // jz done
        &[0xba, 0xf8, 0x03, 0x00, 0x00],                   // mov edx, 0x3f8
        &[0xee],                                           // out dx, al
        &[0xeb, 0xe9],                                     // jmp next
        &[0xf4],                                           // done: hlt
        &[0xeb, 0xfd],                                     // jmp done
        // 0x7c95: the descriptors, none and 64-bit code; 0x7ca5: where they are.
        &[0, 0, 0, 0, 0, 0, 0, 0],
        &[0, 0, 0, 0, 0, 0x9a, 0x20, 0],
        &[0x0f, 0x00, 0x95, 0x7c, 0x00, 0x00],
    ];
    let mut sector = [0; 512];
    for (place, byte) in sector.iter_mut().zip(CODE.concat()) {
        *place = byte;
    }
    for (place, byte) in sector[0x100..].iter_mut().zip(word.bytes().take(15)) {
        *place = byte;
    }
    sector[510] = 0x55;
    sector[511] = 0xaa;
    sector
}

/// Finds out how guests of `architecture` can run: [`Accel::Kvm`] only when a guest did run under it.
///
/// `work` is a folder for scratch files. Guests of another architecture than the host's are emulated, and so are all
/// on hosts that are not x86_64, for whose guests there is no probe yet. An openable /dev/kvm proves nothing: inside some virtual machines QEMU ends
/// at once or the guest never says a word.
pub fn probe_kvm(programs: &Programs, architecture: &str, work: &Path) -> Accel {
    let native = cfg!(target_arch = "x86_64") && architecture == "x86_64";
    if native && says_word(programs, Accel::Kvm, work) { Accel::Kvm } else { Accel::Tcg }
}

/// Whether a boot sector of ours runs under `accel` and says its word.
fn says_word(programs: &Programs, accel: Accel, work: &Path) -> bool {
    let disk = work.join("probe.raw");
    let console = work.join("probe.log");
    let prepared = std::fs::create_dir_all(work).is_ok()
        && std::fs::write(&disk, boot_sector(WORD)).is_ok()
        && std::fs::write(&console, []).is_ok();
    let said = prepared
        && start(&programs.qemu, programs, accel, &disk, &console).is_some_and(|mut child| {
            let said = wait_for_word(&mut child, &console);
            let _ = child.kill();
            let _ = child.wait();
            said
        });
    for scratch in [&disk, &console] {
        let _ = std::fs::remove_file(scratch);
    }
    said
}

fn start(qemu: &Launcher, programs: &Programs, accel: Accel, disk: &Path, console: &Path) -> Option<Child> {
    let escaped = |path: &Path| Some(path.to_str()?.replace(',', ",,"));
    let mut command = qemu.command();
    for folder in &programs.firmware.qemu_data {
        command.arg("-L").arg(folder);
    }
    let cpu = if accel == Accel::Kvm { "host" } else { "max" };
    command
        .args([
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
            "-machine",
            "q35",
            "-m",
            "64",
            "-smp",
            "2",
        ])
        .args(["-accel", accel.option(), "-cpu", cpu])
        .args([
            "-chardev",
            &format!("file,id=console,path={}", escaped(console)?),
            "-serial",
            "chardev:console",
        ])
        .args(["-drive", &format!("file={},format=raw,if=none,id=disk,readonly=on", escaped(disk)?)])
        .args(["-device", "virtio-blk-pci,drive=disk"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .ok()
}

fn wait_for_word(child: &mut Child, console: &Path) -> bool {
    let start = Instant::now();
    loop {
        if std::fs::read_to_string(console).is_ok_and(|text| text.contains(WORD)) {
            return true;
        }
        if start.elapsed() > WORD_LIMIT || !matches!(child.try_wait(), Ok(None)) {
            return false;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
