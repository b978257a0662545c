//! Fuzzes targets, each in processes of its own. `cargo xtask fuzz` builds this with the compiler's coverage counters.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program for people at a terminal")]

use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fuzz::{
    HANGS, Meter, Options, Target, distil, instrumented, interrupted_input, name_of, read_folder, run,
};

#[global_allocator]
static METER: Meter = Meter;

const USAGE: &str = "\
Usage: cargo xtask fuzz [TARGET…] [OPTION…]

  --minutes N            how long, all targets together (default 10)
  --seed N               where the random numbers begin (default 1)
  --jobs N               how many targets at once (default: one a processor)
  --keep                 do not fuzz: add to testdata/fuzz what was found in new places of the code
  --replay TARGET FILE…  run a target on files
  --list                 the targets
";

/// Address space of a worker: what asks for more is ended before the machine swaps.
const ADDRESS_SPACE: u64 = 16 << 30;

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        ["--help" | "-h"] => {
            print!("{USAGE}");
            Ok(true)
        }
        ["--list"] => {
            fuzz::TARGETS.iter().for_each(|target| println!("{:<16}{}", target.name, target.about));
            Ok(true)
        }
        ["--replay", target, files @ ..] if !files.is_empty() => {
            named(target).and_then(|one| replay(one, files))
        }
        ["--worker", target, seeds, work, seconds, seed] => worker(target, seeds, work, seconds, seed),
        words => Plan::read(words).and_then(|plan| plan.carry_out()),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(Problem::Usage(what)) => {
            eprint!("fuzz: {what}\n\n{USAGE}");
            ExitCode::from(2)
        }
        Err(Problem::Io(error)) => {
            eprintln!("fuzz: {error}");
            ExitCode::from(1)
        }
    }
}

enum Problem {
    Usage(String),
    Io(io::Error),
}

impl From<io::Error> for Problem {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

fn named(name: &str) -> Result<&'static Target, Problem> {
    let found = fuzz::TARGETS.iter().find(|target| target.name == name);
    found.ok_or_else(|| {
        let names: Vec<&str> = fuzz::TARGETS.iter().map(|target| target.name).collect();
        Problem::Usage(format!("there is no target `{name}`; there are: {}", names.join(", ")))
    })
}

fn replay(target: &Target, files: &[&str]) -> Result<bool, Problem> {
    let mut good = true;
    for file in files {
        let input = fs::read(file).map_err(|error| io::Error::other(format!("{file}: {error}")))?;
        match run(target, &input) {
            Ok(()) => println!("{file}: {} bytes, nothing wrong", input.len()),
            Err(failure) => {
                println!("{file}: {}", failure.what);
                good = false;
            }
        }
    }
    Ok(good)
}

/// Fuzzes one target in this process and tells the parent in one line.
fn worker(target: &str, seeds: &str, work: &str, seconds: &str, seed: &str) -> Result<bool, Problem> {
    let wrong = |_| Problem::Usage("a worker is started by the program itself".into());
    let options = Options {
        seeds: seeds.into(),
        work: work.into(),
        duration: Duration::from_secs_f64(seconds.parse().map_err(|_| Problem::Usage(seconds.into()))?),
        seed: seed.parse().map_err(wrong)?,
    };
    let limit = rustix::process::Rlimit { current: Some(ADDRESS_SPACE), maximum: Some(ADDRESS_SPACE) };
    rustix::process::setrlimit(rustix::process::Resource::As, limit).map_err(io::Error::from)?;
    let summary = fuzz::fuzz(named(target)?, &options)?;
    println!(
        "{:>9} runs, {:>6} edges of the code, {:>5} inputs of which {} new",
        summary.runs, summary.edges, summary.corpus, summary.new
    );
    let Some((failure, input)) = summary.failure else { return Ok(true) };
    println!("{}", failure.what);
    report(target, &options.work, &input)?;
    Ok(false)
}

/// Puts a failing input into a file and says how to look at it.
fn report(target: &str, work: &Path, input: &[u8]) -> io::Result<()> {
    let folder = work.parent().unwrap_or(work).join("failures");
    fs::create_dir_all(&folder)?;
    let file = folder.join(format!("{target}-{}", name_of(input)));
    fs::write(&file, input)?;
    println!(
        "the input has {} bytes: {}\nreplay it: cargo xtask fuzz --replay {target} {}",
        input.len(),
        file.display(),
        file.display()
    );
    Ok(())
}

struct Plan {
    targets: Vec<&'static Target>,
    minutes: f64,
    seed: u64,
    jobs: usize,
    keep: bool,
    corpora: PathBuf,
    work: PathBuf,
}

impl Plan {
    fn read(words: &[&str]) -> Result<Self, Problem> {
        let folder = |name: &str| {
            let set = env::var_os(name).map(PathBuf::from);
            set.ok_or_else(|| Problem::Usage(format!("{name} is not set: run this as `cargo xtask fuzz`")))
        };
        let mut plan = Self {
            targets: Vec::new(),
            minutes: 10.0,
            seed: 1,
            jobs: std::thread::available_parallelism().map_or(1, usize::from),
            keep: false,
            corpora: folder("BAKEHOUSE_FUZZ_CORPORA")?,
            work: folder("BAKEHOUSE_FUZZ_WORK")?,
        };
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let mut number = || {
                let value = words.next().and_then(|value| value.parse::<f64>().ok());
                let value = value.filter(|value| (0.0..1e9).contains(value));
                value.ok_or_else(|| Problem::Usage(format!("{word} wants a number")))
            };
            match *word {
                "--minutes" => plan.minutes = number()?,
                "--seed" => plan.seed = number()? as u64,
                "--jobs" => plan.jobs = (number()? as usize).max(1),
                "--keep" => plan.keep = true,
                option if option.starts_with('-') => {
                    return Err(Problem::Usage(format!("`{option}` is not an option")));
                }
                name => plan.targets.push(named(name)?),
            }
        }
        if plan.targets.is_empty() {
            plan.targets = fuzz::TARGETS.iter().collect();
        }
        Ok(plan)
    }

    fn carry_out(&self) -> Result<bool, Problem> {
        if !instrumented() {
            return Err(Problem::Usage(
                "this build counts no coverage: `cargo xtask fuzz` makes one that does".into(),
            ));
        }
        if self.keep {
            self.targets.iter().try_for_each(|target| self.keep(target))?;
            return Ok(true);
        }
        let jobs = self.jobs.min(self.targets.len());
        let seconds = self.minutes * 60.0 * jobs as f64 / self.targets.len() as f64;
        println!(
            "fuzz: {} targets, {seconds:.1} s each, {jobs} at once, seed {}",
            self.targets.len(),
            self.seed
        );
        let (queue, good) = (Mutex::new(self.targets.iter()), AtomicBool::new(true));
        let work = || -> io::Result<()> {
            loop {
                let next = queue.lock().unwrap_or_else(std::sync::PoisonError::into_inner).next();
                let Some(target) = next else { return Ok(()) };
                let (fine, text) = self.fuzz(target, seconds)?;
                good.fetch_and(fine, Ordering::Relaxed);
                println!("{:<16}{text}", target.name);
            }
        };
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..jobs).map(|_| scope.spawn(work)).collect();
            threads.into_iter().try_for_each(|thread| {
                thread.join().unwrap_or_else(|_| Err(io::Error::other("a thread panicked")))
            })
        })?;
        Ok(good.into_inner())
    }

    /// Runs a worker to its end; what it or its death tells.
    fn fuzz(&self, target: &Target, seconds: f64) -> io::Result<(bool, String)> {
        let work = self.work.join(target.name);
        let output = Command::new(env::current_exe()?)
            .args(["--worker", target.name])
            .arg(self.corpora.join(target.name))
            .arg(&work)
            .args([seconds.to_string(), self.seed.to_string()])
            // Errors are made by the thousand; nobody reads where.
            .env("RUST_LIB_BACKTRACE", "0")
            .stdin(Stdio::null())
            .output()?;
        let mut text = String::from_utf8_lossy(&output.stdout).trim_end().to_owned();
        if output.status.success() || output.status.code() == Some(1) {
            text.push_str(String::from_utf8_lossy(&output.stderr).trim_end());
            return Ok((output.status.success(), text));
        }
        let why = if output.status.code() == Some(HANGS) {
            "a run did not end in time".to_owned()
        } else {
            format!(
                "the process ended by {}: {}",
                output.status,
                String::from_utf8_lossy(&output.stderr).trim()
            )
        };
        let input = interrupted_input(&work)?;
        let folder = self.work.join("failures");
        fs::create_dir_all(&folder)?;
        let file = folder.join(format!("{}-{}", target.name, name_of(&input)));
        fs::write(&file, &input)?;
        let file = file.display();
        Ok((
            false,
            format!(
                "{why}\nthe input has {} bytes: {file}\nreplay it: cargo xtask fuzz --replay {} {file}",
                input.len(),
                target.name
            ),
        ))
    }

    fn keep(&self, target: &Target) -> io::Result<()> {
        let folder = self.corpora.join(target.name);
        let before = read_folder(&folder)?;
        let kept = distil(target, &folder, &self.work.join(target.name))?;
        fs::create_dir_all(&folder)?;
        for (name, bytes) in &kept {
            fs::write(folder.join(name), bytes)?;
        }
        for (name, _) in before.iter().filter(|(name, _)| !kept.contains_key(name)) {
            fs::remove_file(folder.join(name))?;
        }
        let bytes: usize = kept.values().map(Vec::len).sum();
        println!("{:<16}{} inputs before, {} now, {bytes} bytes", target.name, before.len(), kept.len());
        Ok(())
    }
}
