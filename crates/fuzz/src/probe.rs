//! The two instruments that an input is watched with: which edges of the code it took, and how much memory it held.
//!
//! The compiler's `sancov-module` pass, which `cargo xtask fuzz` switches on, puts an 8-bit counter on every edge and a
//! call before every comparison. Both end here. In a build without the pass nothing calls in, and no edge is seen.
//! These are the crate's only unsafe lines: the functions are called by machine code that the compiler made, and an
//! allocator is unsafe by its trait.
#![allow(
    unsafe_code,
    reason = "the compiler's instrumentation and the allocator's trait are unsafe interfaces"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Counters of the instrumented code: first address and how many, one range for each object file or one for all.
static RANGES: Mutex<Vec<(usize, usize)>> = Mutex::new(Vec::new());

/// How many comparisons are remembered; older ones are overwritten.
const COMPARISONS: usize = 1024;
/// Both sides of comparisons that did not hold, in turn.
static SIDES: [AtomicU64; 2 * COMPARISONS] = [const { AtomicU64::new(0) }; 2 * COMPARISONS];
static NEXT: AtomicUsize = AtomicUsize::new(0);

/// How many edges the instrumented code has; 0 in a build without instrumentation.
pub(crate) fn edges() -> usize {
    ranges().iter().map(|(_, count)| count).sum()
}

fn ranges() -> Vec<(usize, usize)> {
    RANGES.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
}

/// The counters of all edges, read and set to zero.
pub(crate) struct Counters(Vec<(usize, usize)>);

impl Counters {
    /// Finds the counters. They stay where they are while the program runs.
    pub(crate) fn new() -> Self {
        Self(ranges())
    }

    /// Sets all to zero and forgets the comparisons.
    pub(crate) fn reset(&mut self) {
        self.slices().for_each(|counters| counters.fill(0));
        let remembered = NEXT.swap(0, Ordering::Relaxed).min(2 * COMPARISONS);
        SIDES[..remembered].iter().for_each(|side| side.store(0, Ordering::Relaxed));
    }

    /// Calls `see` with the number of each edge that was taken and how often: 1 to 255.
    pub(crate) fn taken(&mut self, mut see: impl FnMut(usize, u8)) {
        let mut first = 0;
        for counters in self.slices() {
            let (words, rest) = counters.as_chunks::<8>();
            for (word, bytes) in words.iter().enumerate() {
                if u64::from_ne_bytes(*bytes) == 0 {
                    continue;
                }
                let counts = bytes.iter().enumerate().filter(|(_, count)| **count != 0);
                counts.for_each(|(at, count)| see(first + word * 8 + at, *count));
            }
            let counts = rest.iter().enumerate().filter(|(_, count)| **count != 0);
            counts.for_each(|(at, count)| see(first + words.len() * 8 + at, *count));
            first += counters.len();
        }
    }

    fn slices(&mut self) -> impl Iterator<Item = &mut [u8]> {
        // SAFETY: the ranges were handed over by the instrumented code as its own counters: static bytes that are
        // mapped and writable as long as the program runs. It adds to them without regard to us; a count that gets lost when
        // another thread adds at the same moment makes an input look a little less interesting, nothing else.
        self.0
            .iter()
            .map(|(start, count)| unsafe { std::slice::from_raw_parts_mut(*start as *mut u8, *count) })
    }
}

/// Comparisons that did not hold since the last reset: both sides, each pair once.
pub(crate) fn comparisons() -> Vec<(u64, u64)> {
    let remembered = NEXT.load(Ordering::Relaxed).min(2 * COMPARISONS);
    let side = |at: usize| SIDES[at].load(Ordering::Relaxed);
    let mut pairs: Vec<(u64, u64)> = (0..remembered / 2).map(|at| (side(2 * at), side(2 * at + 1))).collect();
    pairs.sort_unstable();
    pairs.dedup();
    pairs
}

/// Called once for each object file (or once for all of them) with its counters.
#[unsafe(no_mangle)]
extern "C" fn __sanitizer_cov_8bit_counters_init(start: *mut u8, end: *mut u8) {
    let range = (start as usize, end as usize - start as usize);
    let mut ranges = RANGES.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if range.1 > 0 && !ranges.contains(&range) {
        ranges.push(range);
    }
}

/// Remembers a comparison. It is instrumented itself, so it must not compare: the pair's place comes by masking.
#[inline(always)]
fn remember(one: u64, other: u64) {
    let at = NEXT.fetch_add(2, Ordering::Relaxed) & (2 * COMPARISONS - 2);
    // SAFETY: `at` is even and below the number of sides.
    unsafe {
        SIDES.get_unchecked(at).store(one, Ordering::Relaxed);
        SIDES.get_unchecked(at + 1).store(other, Ordering::Relaxed);
    }
}

macro_rules! comparison {
    ($($name:ident $kind:ty),*) => {
        $(#[unsafe(no_mangle)]
        extern "C" fn $name(one: $kind, other: $kind) {
            remember(one.into(), other.into());
        })*
    };
}
// Bytes are found by chance soon enough.
comparison!(
    __sanitizer_cov_trace_cmp2 u16, __sanitizer_cov_trace_cmp4 u32, __sanitizer_cov_trace_cmp8 u64,
    __sanitizer_cov_trace_const_cmp2 u16, __sanitizer_cov_trace_const_cmp4 u32, __sanitizer_cov_trace_const_cmp8 u64
);
#[unsafe(no_mangle)]
extern "C" fn __sanitizer_cov_trace_cmp1(_one: u8, _other: u8) {}
#[unsafe(no_mangle)]
extern "C" fn __sanitizer_cov_trace_const_cmp1(_one: u8, _other: u8) {}
#[unsafe(no_mangle)]
extern "C" fn __sanitizer_cov_trace_switch(_value: u64, _cases: *const u64) {}

/// An allocator that counts what is held; the program's global one.
pub struct Meter;

static HELD: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

impl Meter {
    /// Starts a measurement: what is held now counts as nothing.
    pub(crate) fn start() -> usize {
        let held = HELD.load(Ordering::Relaxed);
        MOST.store(held, Ordering::Relaxed);
        held
    }

    /// The most bytes that were held at once since the measurement that began at `start`.
    pub(crate) fn most_since(start: usize) -> usize {
        MOST.load(Ordering::Relaxed).saturating_sub(start)
    }
}

fn add(bytes: usize) {
    let held = HELD.fetch_add(bytes, Ordering::Relaxed).wrapping_add(bytes);
    MOST.fetch_max(held, Ordering::Relaxed);
}

// SAFETY: every call is passed on to the system's allocator as it came; only numbers are kept beside it.
unsafe impl GlobalAlloc for Meter {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        add(layout.size());
        // SAFETY: the caller's promises are those that the system's allocator wants.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        add(layout.size());
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        add(size);
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, size) }
    }
}
