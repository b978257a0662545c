//! Fuzzing on stable Rust: an engine guided by the compiler's coverage counters, and a target for each parser of
//! foreign data in this house.
//!
//! *What comes in:* committed inputs (`testdata/fuzz/<target>/`) and a time. *What goes out:* inputs that took the code
//! to new places, and those that made a target fail. *What it may not know:* how a parser works inside; targets call
//! what other rooms call, or the one function that a room shows for this purpose.
//!
//! A target fails when it panics, overflows (checks are on), overflows its stack, does not end in ten seconds, holds
//! more memory than [`Target::memory`] allows for the length of its input, or when an assertion of its own does not hold:
//! what is written back must read the same, a name must stay inside its root, two answers must agree.
//!
//! `cargo xtask fuzz` builds the program with counters and runs it; `cargo test -p bakehouse-fuzz` runs every committed
//! input once, in an ordinary build. Code written in C (zstd, liblzma, libdeflate) has no counters and no checks.

mod engine;
mod mutate;
mod probe;
mod targets;

pub use engine::{
    CURRENT, Failure, HANGS, Options, Summary, distil, fuzz, interrupted_input, name_of, read_folder, run,
};
pub use probe::Meter;
pub use targets::TARGETS;

/// Whether this build counts which edges of the code are taken.
pub fn instrumented() -> bool {
    probe::edges() > 0
}

/// One parser of foreign data, and what must hold of it.
#[derive(Clone, Copy)]
pub struct Target {
    /// Its name, and that of its corpus.
    pub name: &'static str,
    /// What the input stands for, in a line.
    pub about: &'static str,
    /// Inputs are cut at so many bytes.
    pub longest: usize,
    /// Words of the format that chance would not find.
    pub words: &'static [&'static [u8]],
    /// Makes checksums true again, so that changes get past them.
    pub repair: fn(&mut [u8]),
    /// Memory that a run may hold, whatever its input: buffers and limits that the parser sets itself.
    pub fixed_memory: usize,
    /// And for each byte of its input.
    pub memory_a_byte: usize,
    /// Runs it; panics when something does not hold.
    pub run: fn(&[u8]),
}

impl Target {
    /// A target whose inputs need no repair, with 4 MiB and 256 bytes for each byte of input.
    const fn new(name: &'static str, about: &'static str, longest: usize, run: fn(&[u8])) -> Self {
        let (fixed_memory, memory_a_byte) = (4 << 20, 256);
        Self { name, about, longest, words: &[], repair: |_| {}, fixed_memory, memory_a_byte, run }
    }

    /// The most bytes of memory that a run on `length` bytes may hold at once.
    pub fn memory(&self, length: usize) -> usize {
        self.fixed_memory + self.memory_a_byte * length
    }
}
