//! What the kernel starts in place of a program of another architecture: `handler PATH ARGV0 ARGUMENT…`, with the
//! program open at AT_EXECFD. It looks the program up in a table and executes the host's program of the same package
//! and version, or else the emulator.
//!
//! It has no libraries: a few system calls, and memory on the stack that the kernel made. It never allocates.
#![no_std]
#![no_main]
#![no_builtins]

use core::arch::{asm, global_asm};
use core::panic::PanicInfo;
use core::ptr::null;

/// Where the sandbox lays what the handler needs. The baker's side of these names is in `../src/lib.rs`.
const TABLE: &[u8] = b"/.bh/table\0";
const COUNT: &[u8] = b"/.bh/count\0";
const EMULATOR: &[u8] = b"/.bh/qemu\0";
const OWN_FOLDER: &[u8] = b"/.bh/";

/// Before each entry of the table: what the file must be like, and how long the texts are that follow. All texts end
/// with a zero byte, which their lengths count.
struct Entry {
    size: u64,
    mtime: u64,
    path: Text,
    program: Text,
    /// `NAME=value` for the program alone, or empty.
    variable: Text,
    /// What its first argument must be one of, with spaces between them, or empty.
    arguments: Text,
}

/// Bytes somewhere in memory that stays.
#[derive(Clone, Copy)]
struct Text {
    start: *const u8,
    length: usize,
}

const MAX_ENVIRONMENT: usize = 2048;
const MAX_VARIABLE: usize = 4096;

#[cfg(target_arch = "x86_64")]
mod call {
    pub const WRITE: usize = 1;
    pub const CLOSE: usize = 3;
    pub const FSTAT: usize = 5;
    pub const MMAP: usize = 9;
    pub const FCNTL: usize = 72;
    pub const EXECVE: usize = 59;
    pub const EXIT_GROUP: usize = 231;
    pub const OPENAT: usize = 257;
    pub const READLINKAT: usize = 267;
    /// Where fstat's answer has them, in words of 8 bytes.
    pub const STAT_SIZE: usize = 6;
    pub const STAT_MTIME: usize = 11;
}
#[cfg(target_arch = "aarch64")]
mod call {
    pub const WRITE: usize = 64;
    pub const CLOSE: usize = 57;
    pub const FSTAT: usize = 80;
    pub const MMAP: usize = 222;
    pub const FCNTL: usize = 25;
    pub const EXECVE: usize = 221;
    pub const EXIT_GROUP: usize = 94;
    pub const OPENAT: usize = 56;
    pub const READLINKAT: usize = 78;
    pub const STAT_SIZE: usize = 6;
    pub const STAT_MTIME: usize = 11;
}

#[cfg(target_arch = "x86_64")]
global_asm!(".globl _start", "_start:", "xor ebp, ebp", "mov rdi, rsp", "and rsp, -16", "call {main}", "ud2", main = sym main);
#[cfg(target_arch = "aarch64")]
global_asm!(".globl _start", "_start:", "mov x29, #0", "mov x30, #0", "mov x0, sp", "bl {main}", "brk #1", main = sym main);

#[panic_handler]
fn panicked(_: &PanicInfo<'_>) -> ! {
    exit(126)
}

/// The ready-made core library was built to unwind, which never happens here.
// SAFETY: nobody calls it; only its name is asked for.
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}

/// A system call with up to six arguments: its result, or a negated errno.
#[cfg(target_arch = "x86_64")]
fn system(number: usize, arguments: [usize; 6]) -> isize {
    let [a, b, c, d, e, f] = arguments;
    let result;
    // SAFETY: the kernel's convention on x86_64. Callers pass addresses of live memory of the size that the call takes.
    unsafe {
        asm!("syscall", inlateout("rax") number as isize => result, in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d,
            in("r8") e, in("r9") f, lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    result
}

/// A system call with up to six arguments: its result, or a negated errno.
#[cfg(target_arch = "aarch64")]
fn system(number: usize, arguments: [usize; 6]) -> isize {
    let [a, b, c, d, e, f] = arguments;
    let result;
    // SAFETY: the kernel's convention on aarch64. Callers pass addresses of live memory of the size that the call takes.
    unsafe {
        asm!("svc 0", in("x8") number, inlateout("x0") a as isize => result, in("x1") b, in("x2") c, in("x3") d,
            in("x4") e, in("x5") f, options(nostack));
    }
    result
}

fn exit(code: usize) -> ! {
    loop {
        system(call::EXIT_GROUP, [code, 0, 0, 0, 0, 0]);
    }
}

/// Opens a path that ends with a zero byte.
fn open(path: &[u8], flags: usize) -> Option<usize> {
    const HERE: usize = -100_isize as usize;
    let descriptor = system(call::OPENAT, [HERE, path.as_ptr() as usize, flags, 0, 0, 0]);
    usize::try_from(descriptor).ok()
}

fn close(descriptor: usize) {
    system(call::CLOSE, [descriptor, 0, 0, 0, 0, 0]);
}

fn write(descriptor: usize, bytes: Text) {
    system(call::WRITE, [descriptor, bytes.start as usize, bytes.length, 0, 0, 0]);
}

/// Size and modification time of an open file.
fn stat(descriptor: usize) -> Option<(u64, u64)> {
    let mut answer = [0_u64; 18];
    let result = system(call::FSTAT, [descriptor, answer.as_mut_ptr() as usize, 0, 0, 0, 0]);
    (result == 0).then_some((answer[call::STAT_SIZE], answer[call::STAT_MTIME]))
}

impl Text {
    const EMPTY: Self = Self { start: null(), length: 0 };

    fn of(bytes: &'static [u8]) -> Self {
        Self { start: bytes.as_ptr(), length: bytes.len() }
    }

    /// A C string without its zero byte.
    fn c(start: *const u8) -> Self {
        let mut length = 0;
        // SAFETY: the kernel ends each argument and variable with a zero byte.
        while unsafe { *start.add(length) } != 0 {
            length += 1;
        }
        Self { start, length }
    }

    fn at(self, index: usize) -> u8 {
        // SAFETY: within the length; otherwise zero, and nothing is read.
        if index < self.length { unsafe { *self.start.add(index) } } else { 0 }
    }

    fn begins_with(self, other: Text) -> bool {
        let mut index = 0;
        while index < other.length {
            if index >= self.length || self.at(index) != other.at(index) {
                return false;
            }
            index += 1;
        }
        true
    }

    fn from(self, index: usize) -> Self {
        let index = if index < self.length { index } else { self.length };
        // SAFETY: still within the text, or just behind it.
        Self { start: unsafe { self.start.add(index) }, length: self.length - index }
    }

    /// Whether one of its words, with spaces between them, is `word`.
    fn has_word(mut self, word: Text) -> bool {
        while self.length > 0 {
            let length = self.find(b' ');
            if length == word.length && self.begins_with(word) {
                return true;
            }
            self = self.from(length + 1);
        }
        false
    }

    /// The place of the first such byte, or the length.
    fn find(self, byte: u8) -> usize {
        let mut index = 0;
        while index < self.length && self.at(index) != byte {
            index += 1;
        }
        index
    }
}

/// The kernel's words on the stack: count, arguments, null, variables, null, pairs of the auxiliary vector.
struct Start {
    words: *mut usize,
    count: usize,
}

impl Start {
    fn word(&self, index: usize) -> usize {
        // SAFETY: callers stay within what the kernel wrote.
        unsafe { *self.words.add(index) }
    }

    fn set(&mut self, index: usize, word: usize) {
        // SAFETY: as above; this memory is the process's own.
        unsafe { *self.words.add(index) = word };
    }

    fn argument(&self, index: usize) -> Text {
        Text::c(self.word(1 + index) as *const u8)
    }

    /// The variables' first word.
    fn environment(&self) -> usize {
        self.count + 2
    }

    fn auxiliary(&self, key: usize) -> Option<usize> {
        let mut at = self.environment();
        while self.word(at) != 0 {
            at += 1;
        }
        at += 1;
        while self.word(at) != 0 {
            if self.word(at) == key {
                return Some(self.word(at + 1));
            }
            at += 2;
        }
        None
    }
}

/// Where an open file lies now, links resolved; needs /proc.
fn path_of(descriptor: usize, buffer: &mut [u8; 512]) -> Option<Text> {
    const HERE: usize = -100_isize as usize;
    let mut name = [0_u8; 32];
    name[..14].copy_from_slice(b"/proc/self/fd/");
    let (mut digits, mut count, mut rest) = ([0_u8; 10], 0, descriptor);
    while count < 10 && (count == 0 || rest > 0) {
        digits[count] = b'0' + (rest % 10) as u8;
        rest /= 10;
        count += 1;
    }
    for at in 0..count {
        name[14 + at] = digits[count - 1 - at];
    }
    let arguments = [HERE, name.as_ptr() as usize, buffer.as_mut_ptr() as usize, buffer.len(), 0, 0];
    let length = usize::try_from(system(call::READLINKAT, arguments)).ok()?;
    (length < buffer.len()).then_some(Text { start: buffer.as_ptr(), length })
}

/// The table in memory.
fn table() -> Option<Text> {
    const READ_ONLY_PRIVATE: (usize, usize) = (1, 2);
    let descriptor = open(TABLE, 0o2000000)?;
    let size = stat(descriptor).map_or(0, |(size, _)| size as usize);
    let (protection, kind) = READ_ONLY_PRIVATE;
    let address = system(call::MMAP, [0, size, protection, kind, descriptor, 0]);
    close(descriptor);
    (size > 0 && address > 0).then_some(Text { start: address as *const u8, length: size })
}

fn number(text: Text, at: usize, bytes: usize) -> u64 {
    let mut value = 0;
    let mut index = bytes;
    while index > 0 {
        index -= 1;
        value = value << 8 | u64::from(text.at(at + index));
    }
    value
}

/// Takes the first entry off the table.
fn next_entry(table: &mut Text) -> Option<Entry> {
    const HEAD: usize = 24;
    if table.length < HEAD {
        return None;
    }
    let lengths = [
        number(*table, 16, 2) as usize,
        number(*table, 18, 2) as usize,
        number(*table, 20, 2) as usize,
        number(*table, 22, 2) as usize,
    ];
    let all = HEAD + lengths[0] + lengths[1] + lengths[2] + lengths[3];
    if lengths[0] == 0 || lengths[1] == 0 || table.length < all {
        return None;
    }
    let text = |from: usize, length: usize| Text { length, ..table.from(from) };
    let text_or_empty =
        |from: usize, length: usize| if length == 0 { Text::EMPTY } else { text(from, length - 1) };
    let entry = Entry {
        size: number(*table, 0, 8),
        mtime: number(*table, 8, 8),
        path: text(HEAD, lengths[0] - 1),
        program: text(HEAD + lengths[0], lengths[1] - 1),
        variable: text_or_empty(HEAD + lengths[0] + lengths[1], lengths[2]),
        arguments: text_or_empty(HEAD + lengths[0] + lengths[1] + lengths[2], lengths[3]),
    };
    *table = table.from(all);
    Some(entry)
}

/// `first`: the program's first argument.
fn look_up(path: Text, size: u64, mtime: u64, first: Text) -> Option<Entry> {
    let mut table = table()?;
    while let Some(entry) = next_entry(&mut table) {
        if entry.size == size
            && entry.mtime == mtime
            && entry.path.length == path.length
            && path.begins_with(entry.path)
        {
            let fits = entry.arguments.length == 0 || entry.arguments.has_word(first);
            return if fits { Some(entry) } else { None };
        }
    }
    None
}

/// Notes how a program was started: `N` or `E`, the path, a line break, in one write.
fn count(kind: u8, path: Text) {
    const WRITE_APPEND_CLOSE: usize = 0o1 | 0o2000 | 0o2000000;
    let Some(descriptor) = open(COUNT, WRITE_APPEND_CLOSE) else { return };
    let mut line = [0_u8; 514];
    line[0] = kind;
    let length = if path.length < 512 { path.length } else { 512 };
    for at in 0..length {
        line[1 + at] = path.at(at);
    }
    line[1 + length] = b'\n';
    write(descriptor, Text { start: line.as_ptr(), length: length + 2 });
    close(descriptor);
}

/// The environment for what is executed: the caller's without what an earlier handler added, and with `variable`.
/// `None` when it is too large to be rewritten.
fn environment(
    start: &Start,
    variable: Text,
    list: &mut [usize; MAX_ENVIRONMENT],
    buffer: &mut [u8; MAX_VARIABLE],
) -> Option<()> {
    let name_length = variable.find(b'=') + 1;
    let mut used = 0;
    let mut old = Text::EMPTY;
    let mut at = start.environment();
    while start.word(at) != 0 {
        let mut text = Text::c(start.word(at) as *const u8);
        at += 1;
        let value = text.find(b'=') + 1;
        if text.from(value).begins_with(Text::of(OWN_FOLDER)) && added_by_us(text) {
            let mut rest = text.from(value);
            while rest.begins_with(Text::of(OWN_FOLDER)) {
                rest = rest.from(rest.find(b':') + 1);
            }
            if rest.length == 0 {
                continue;
            }
            // Only ever `NAME=/.bh/…:old`: the name moves to just before what was there.
            let mut index = value;
            while index > 0 {
                index -= 1;
                // SAFETY: the variable's own memory, writable, before `rest` and within the text.
                unsafe { *rest.start.sub(value - index).cast_mut() = text.at(index) };
            }
            text = Text { start: unsafe { rest.start.sub(value) }, length: rest.length + value };
        }
        if variable.length > 0 && text.begins_with(Text { length: name_length, ..variable }) {
            old = text.from(name_length);
            continue;
        }
        if used + 2 >= MAX_ENVIRONMENT {
            return None;
        }
        list[used] = text.start as usize;
        used += 1;
    }
    if variable.length > 0 {
        let glue = usize::from(old.length > 0);
        if variable.length + glue + old.length >= MAX_VARIABLE {
            return None;
        }
        for index in 0..variable.length {
            buffer[index] = variable.at(index);
        }
        if glue == 1 {
            buffer[variable.length] = b':';
        }
        for index in 0..old.length {
            buffer[variable.length + 1 + index] = old.at(index);
        }
        buffer[variable.length + glue + old.length] = 0;
        list[used] = buffer.as_ptr() as usize;
        used += 1;
    }
    list[used] = 0;
    Some(())
}

fn added_by_us(text: Text) -> bool {
    text.begins_with(Text::of(b"PYTHONPATH="))
}

/// Whether somebody tells the dynamic loader what to do: that is meant for the target's.
fn speaks_to_the_loader(start: &Start) -> bool {
    let mut at = start.environment();
    while start.word(at) != 0 {
        if Text::c(start.word(at) as *const u8).begins_with(Text::of(b"LD_")) {
            return true;
        }
        at += 1;
    }
    false
}

fn execute(path: *const u8, arguments: *const usize, environment: *const usize) {
    system(call::EXECVE, [path as usize, arguments as usize, environment as usize, 0, 0, 0]);
}

extern "C" fn main(words: *mut usize) -> ! {
    const AT_EXECFD: usize = 2;
    const F_SETFD: usize = 2;
    const FD_CLOEXEC: usize = 1;
    // SAFETY: the kernel's first word is the number of arguments.
    let mut start = Start { words, count: unsafe { *words } };
    if start.count < 3 {
        complain(b"bakehouse: this program is started by the kernel only\n", Text::EMPTY);
        exit(126);
    }
    let given = start.argument(1);
    let mut buffer = [0; 512];
    let mut list = [0; MAX_ENVIRONMENT];
    let mut variable = [0; MAX_VARIABLE];
    let descriptor = start.auxiliary(AT_EXECFD);
    let mut path = given;
    let mut entry = None;
    if let Some(descriptor) = descriptor {
        if let Some(resolved) = path_of(descriptor, &mut buffer) {
            path = resolved;
            if let Some((size, mtime)) = stat(descriptor)
                && !speaks_to_the_loader(&start)
            {
                let first = if start.count > 3 { start.argument(3) } else { Text::EMPTY };
                entry = look_up(resolved, size, mtime, first);
            }
        }
        // A program that was itself given as a descriptor is only to be found by it.
        let by_descriptor =
            given.begins_with(Text::of(b"/dev/fd/")) || given.begins_with(Text::of(b"/proc/"));
        if entry.is_some() || !by_descriptor {
            system(call::FCNTL, [descriptor, F_SETFD, FD_CLOEXEC, 0, 0, 0]);
        }
    }
    if let Some(entry) = entry
        && environment(&start, entry.variable, &mut list, &mut variable).is_some()
    {
        count(b'N', path);
        // argv[0] and what follows is where the program wants it.
        // SAFETY: within the kernel's words.
        let arguments = unsafe { start.words.add(3) };
        execute(entry.program.start, arguments, list.as_ptr());
    }
    if environment(&start, Text::EMPTY, &mut list, &mut variable).is_none() {
        complain(b"bakehouse: too many environment variables for ", given);
        exit(126);
    }
    count(b'E', path);
    // Before: count, handler, PATH, ARGV0, arguments. After: emulator, -0, ARGV0, PATH, arguments.
    let (given_word, argv0_word) = (start.word(2), start.word(3));
    start.set(0, EMULATOR.as_ptr() as usize);
    start.set(1, c"-0".as_ptr() as usize);
    start.set(2, argv0_word);
    start.set(3, given_word);
    execute(EMULATOR.as_ptr(), start.words, list.as_ptr());
    complain(b"bakehouse: the emulator is not within reach (another root?) of ", given);
    exit(126)
}

fn complain(what: &'static [u8], path: Text) {
    const STANDARD_ERROR: usize = 2;
    write(STANDARD_ERROR, Text::of(what));
    if path.length > 0 {
        write(STANDARD_ERROR, path);
        write(STANDARD_ERROR, Text::of(b"\n"));
    }
}

/// The compiler asks for these where it copies or fills memory.
mod memory {
    // SAFETY: C's own contract for each: callers give that many bytes.
    #[unsafe(no_mangle)]
    unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, count: usize) -> *mut u8 {
        for at in 0..count {
            // SAFETY: as promised by the caller.
            unsafe { *to.add(at) = *from.add(at) };
        }
        to
    }

    // SAFETY: C's own contract.
    #[unsafe(no_mangle)]
    unsafe extern "C" fn memset(to: *mut u8, byte: i32, count: usize) -> *mut u8 {
        for at in 0..count {
            // SAFETY: as promised by the caller.
            unsafe { *to.add(at) = byte as u8 };
        }
        to
    }
}
