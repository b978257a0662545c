//! The loop: change an input, run it, keep it when it went where none went before.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use block::Digest;

use crate::Target;
use crate::mutate::{Random, Sources, mutate};
use crate::probe::{self, Counters, Meter};

/// One run that takes longer hangs.
const RUN_LIMIT: Duration = Duration::from_secs(10);
/// The time that is spent on making a failing input smaller.
const SHRINK_LIMIT: Duration = Duration::from_secs(5);
/// The longest input that a committed corpus takes, and how many; those with a name of their own come on top.
const KEPT_LENGTH: usize = 4 << 10;
const MOST_KEPT: usize = 32;

/// Why an input is a failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The panic's message and place, or how much memory was held.
    pub what: String,
    /// Where in the code, to tell one failure from another.
    pub place: String,
}

thread_local! {
    /// Whether this thread runs a target.
    static RUNS: Cell<bool> = const { Cell::new(false) };
    static PANIC: RefCell<Option<Failure>> = const { RefCell::new(None) };
}

/// Runs a target on an input and says what was wrong: it panicked, or held more memory than the target may. Its panic is not
/// printed.
pub fn run(target: &Target, input: &[u8]) -> Result<(), Failure> {
    quiet_panics();
    let start = Meter::start();
    RUNS.set(true);
    let result = panic::catch_unwind(AssertUnwindSafe(|| (target.run)(input)));
    RUNS.set(false);
    let most = Meter::most_since(start);
    if result.is_err() {
        let unknown = || Failure { what: "panicked in another thread".into(), place: String::new() };
        return Err(PANIC.take().unwrap_or_else(unknown));
    }
    let limit = target.memory(input.len());
    if most > limit {
        let what =
            format!("held {most} bytes of memory, {limit} are allowed for {} bytes of input", input.len());
        return Err(Failure { what, place: "memory".into() });
    }
    Ok(())
}

fn quiet_panics() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let others = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !RUNS.get() {
                return others(info);
            }
            let place = info.location().map(ToString::to_string).unwrap_or_default();
            let payload = info.payload();
            let text = payload.downcast_ref::<&str>().copied();
            let text = text.or(payload.downcast_ref::<String>().map(String::as_str));
            let message = text.unwrap_or("no message");
            let failure = Failure { what: format!("panicked at {place}: {message}"), place };
            PANIC.with_borrow_mut(|panic| panic.get_or_insert(failure).clone());
        }));
    });
}

/// How a target is fuzzed.
#[derive(Clone, Debug)]
pub struct Options {
    /// The committed corpus.
    pub seeds: PathBuf,
    /// The folder for what is found: inputs that took new ways, and `current`, the one being run.
    pub work: PathBuf,
    /// How long.
    pub duration: Duration,
    /// Where the random numbers begin.
    pub seed: u64,
}

/// What came of fuzzing a target.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// How many inputs were run.
    pub runs: u64,
    /// How many edges of the code were taken by any of them.
    pub edges: usize,
    /// How many inputs the corpus has.
    pub corpus: usize,
    /// How many of them are new.
    pub new: usize,
    /// A failure, and the input, made as small as time allowed.
    pub failure: Option<(Failure, Vec<u8>)>,
}

/// The file in the work folder that holds the input being run: what is left when the process does not survive it.
pub const CURRENT: &str = "current";

/// Fuzzes one target. The process ends itself when a run hangs.
pub fn fuzz(target: &Target, options: &Options) -> io::Result<Summary> {
    let found = options.work.join("corpus");
    fs::create_dir_all(&found)?;
    let mut fuzzer = Fuzzer {
        target,
        counters: Counters::new(),
        seen: vec![0; probe::edges()],
        current: File::create(options.work.join(CURRENT))?,
        watch: Watch::start()?,
        runs: 0,
    };
    let mut summary = Summary::default();
    let mut corpus: Vec<Entry> = Vec::new();
    let mut inputs = read_folder(&options.seeds)?;
    inputs.append(&mut read_folder(&found)?);
    for (_, bytes) in inputs {
        if let Err(failure) = fuzzer.run(&bytes) {
            return Ok(fuzzer.failed(summary, failure, bytes));
        }
        if fuzzer.news() {
            corpus.push(Entry { bytes, comparisons: probe::comparisons() });
        }
    }
    if corpus.is_empty() {
        corpus.push(Entry { bytes: Vec::new(), comparisons: Vec::new() });
    }
    let (mut random, end) = (Random::new(options.seed), Instant::now() + options.duration);
    while Instant::now() < end {
        // Half of the time something new: there is more to be found around it.
        let recent = corpus.len().div_ceil(8);
        let base = if random.one_in(2) {
            corpus.len() - 1 - random.below(recent)
        } else {
            random.below(corpus.len())
        };
        for _ in 0..64 {
            let other = random.below(corpus.len());
            let mut input = corpus[base].bytes.clone();
            let sources = Sources {
                words: target.words,
                comparisons: &corpus[base].comparisons,
                other: &corpus[other].bytes,
                longest: target.longest,
            };
            mutate(&mut input, &mut random, &sources);
            if !random.one_in(8) {
                (target.repair)(&mut input);
            }
            if let Err(failure) = fuzzer.run(&input) {
                return Ok(fuzzer.failed(summary, failure, input));
            }
            if fuzzer.news() {
                let comparisons = probe::comparisons();
                fs::write(found.join(name_of(&input)), &input)?;
                summary.new += 1;
                corpus.push(Entry { bytes: input, comparisons });
            }
        }
    }
    summary.corpus = corpus.len();
    Ok(Summary { runs: fuzzer.runs, edges: fuzzer.edges(), ..summary })
}

struct Entry {
    bytes: Vec<u8>,
    comparisons: Vec<(u64, u64)>,
}

struct Fuzzer<'a> {
    target: &'a Target,
    counters: Counters,
    /// For each edge the ranges of counts that were seen, a bit each.
    seen: Vec<u8>,
    current: File,
    watch: Watch,
    runs: u64,
}

impl Fuzzer<'_> {
    fn run(&mut self, input: &[u8]) -> Result<(), Failure> {
        // The length goes first: a shorter input leaves the end of a longer one behind it.
        let written = self.current.write_all_at(&(input.len() as u64).to_le_bytes(), 0);
        let _ = written.and_then(|()| self.current.write_all_at(input, 8));
        self.runs += 1;
        self.watch.begin();
        self.counters.reset();
        let result = run(self.target, input);
        self.watch.end();
        result
    }

    /// Whether the last run took an edge, or took it so often, as none before.
    fn news(&mut self) -> bool {
        let mut news = false;
        let seen = &mut self.seen;
        self.counters.taken(|edge, count| {
            let bit = match count {
                0..=3 => 1 << count.saturating_sub(1),
                4..=7 => 8,
                8..=15 => 16,
                16..=31 => 32,
                32..=127 => 64,
                _ => 128,
            };
            news |= seen[edge] & bit == 0;
            seen[edge] |= bit;
        });
        news
    }

    fn edges(&self) -> usize {
        self.seen.iter().filter(|bits| **bits != 0).count()
    }

    /// Makes the input smaller while it fails at the same place.
    fn failed(&mut self, summary: Summary, mut failure: Failure, mut input: Vec<u8>) -> Summary {
        let end = Instant::now() + SHRINK_LIMIT;
        let mut piece = input.len().div_ceil(2);
        while piece > 0 && Instant::now() < end {
            let (mut at, mut smaller) = (0, false);
            while at < input.len() && Instant::now() < end {
                let mut without = input[..at].to_vec();
                without.extend_from_slice(input.get(at + piece..).unwrap_or_default());
                match self.run(&without) {
                    Err(same) if same.place == failure.place => {
                        (failure, input, smaller) = (same, without, true);
                    }
                    _ => at += piece,
                }
            }
            if !smaller {
                piece /= 2;
            }
        }
        Summary { runs: self.runs, edges: self.edges(), failure: Some((failure, input)), ..summary }
    }
}

/// Ends the process when a run takes too long: a loop without end cannot be stopped any other way.
struct Watch {
    started: Instant,
    /// When the present run began, in milliseconds since `started`; 0 between runs.
    began: Arc<AtomicU64>,
}

/// The exit code of a process whose run took too long.
pub const HANGS: i32 = 71;

impl Watch {
    fn start() -> io::Result<Self> {
        let (started, began) = (Instant::now(), Arc::new(AtomicU64::new(0)));
        let watched = Arc::clone(&began);
        std::thread::Builder::new().name("watch".into()).spawn(move || {
            loop {
                std::thread::sleep(RUN_LIMIT / 10);
                let began = watched.load(Ordering::Relaxed);
                let now = started.elapsed().as_millis() as u64;
                if began != 0 && now.saturating_sub(began) > RUN_LIMIT.as_millis() as u64 {
                    std::process::exit(HANGS);
                }
            }
        })?;
        Ok(Self { started, began })
    }

    fn begin(&self) {
        self.began.store(1 + self.started.elapsed().as_millis() as u64, Ordering::Relaxed);
    }

    fn end(&self) {
        self.began.store(0, Ordering::Relaxed);
    }
}

/// The input that was being run when a process ended, from its work folder.
pub fn interrupted_input(work: &Path) -> io::Result<Vec<u8>> {
    let bytes = fs::read(work.join(CURRENT))?;
    let (length, rest) = bytes.split_first_chunk::<8>().ok_or(io::ErrorKind::UnexpectedEof)?;
    let length = usize::try_from(u64::from_le_bytes(*length)).unwrap_or(usize::MAX);
    Ok(rest.get(..length).unwrap_or(rest).to_vec())
}

/// The inputs of the committed corpus and the work folder that are worth keeping, by file name: all with a name of their
/// own, and of the others a few, each time the one that adds most edges to what is kept already.
pub fn distil(target: &Target, seeds: &Path, work: &Path) -> io::Result<BTreeMap<String, Vec<u8>>> {
    let mut counters = Counters::new();
    let mut seen = vec![false; probe::edges()];
    let mut inputs = read_folder(seeds)?;
    inputs.append(&mut read_folder(&work.join("corpus"))?);
    let (mut kept, mut others) = (BTreeMap::new(), Vec::new());
    for (name, bytes) in inputs {
        let named = name_of(&bytes) != name;
        if !named && bytes.len() > KEPT_LENGTH {
            continue;
        }
        counters.reset();
        if let Err(failure) = run(target, &bytes) {
            return Err(io::Error::other(format!("{name}: {}", failure.what)));
        }
        let mut edges = Vec::new();
        counters.taken(|edge, _| edges.push(edge));
        if named {
            edges.iter().for_each(|edge| seen[*edge] = true);
            kept.insert(name, bytes);
        } else {
            others.push((name, bytes, edges));
        }
    }
    for _ in 0..MOST_KEPT {
        others.iter_mut().for_each(|(_, _, edges)| edges.retain(|edge| !seen[*edge]));
        // Of equals the shortest.
        let best = others.iter().enumerate().max_by_key(|(_, (name, bytes, edges))| {
            (edges.len(), std::cmp::Reverse(bytes.len()), name.clone())
        });
        let Some((at, _)) = best.filter(|(_, (_, _, edges))| !edges.is_empty()) else { break };
        let (name, bytes, edges) = others.swap_remove(at);
        edges.iter().for_each(|edge| seen[*edge] = true);
        kept.insert(name, bytes);
    }
    Ok(kept)
}

/// Sixteen digits that follow from the bytes: the name of an input that nobody named.
pub fn name_of(input: &[u8]) -> String {
    Digest::of(input).to_hex()[..16].to_owned()
}

/// The files of a folder by name; none when there is no folder.
pub fn read_folder(folder: &Path) -> io::Result<Vec<(String, Vec<u8>)>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut files = Vec::new();
    for entry in entries {
        let entry = entry?;
        files.push((entry.file_name().to_string_lossy().into_owned(), fs::read(entry.path())?));
    }
    files.sort();
    Ok(files)
}
