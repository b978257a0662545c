//! The block store against desync, casync, borg and restic on the same sparse images, in turns, in one run, with the floors
//! beside them: SHA-256 of the data, zstd, a plain copy.
//!
//! `--runs N` says how often each is measured (default 5); `--images A,B,C` takes raw images of one's own instead of the
//! series that is baked here: an image, the same with one line changed, the same after security updates, a sibling with
//! more packages; `--only A,B` leaves out the
//! others; `--patience SECONDS` measures those once whose first turn takes longer, and says so. All programs are run as a
//! user runs them; pages are warm, everything is written back before each measurement, and what a program syncs itself is in its
//! time: ours syncs all that it commits.
#![allow(clippy::print_stdout, reason = "a bench tells its results there")]

#[path = "../tests/peer/peers.rs"]
#[allow(dead_code, reason = "shared with the test that runs mmdebstrap")]
mod peers;
mod series;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use block::{BlockSource, Digest};
use formats::RawFile;
use peers::cache_folder;
use series::{Step, size};
use tools::{Set, Tools};

/// The steps of the series, in order.
const FIRST: usize = 0;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let value = |name: &str| {
        let at = arguments.iter().position(|word| word == name)?;
        Some(arguments.get(at + 1).unwrap_or_else(|| panic!("{name} wants a value")).clone())
    };
    let runs: usize =
        value("--runs").map_or(5, |number| number.parse().expect("--runs wants a number of turns"));
    let patience: f64 = value("--patience")
        .map_or(f64::INFINITY, |seconds| seconds.parse().expect("--patience wants a number of seconds"));
    let cache = cache_folder();
    println!("tools, fetched where they are not in the cache:");
    let (tools, desync) = (peers::tools(Set::Stores), peers::tools(Set::Desync));
    let images = match value("--images") {
        Some(list) => list.split(',').map(|path| Image::own(Path::new(path))).collect(),
        None => series(&cache),
    };
    assert!(images.len() >= 2, "a series has two images at least");
    let work = peers::work_folder();
    let mut contenders = contenders(&tools, &desync);
    if let Some(only) = value("--only") {
        contenders.retain(|one| only.split(',').any(|name| one.name.contains(name)) || one.name == OURS);
    }
    for image in &images {
        println!(
            "{}: {} MiB of data in {} MiB, {}",
            image.name,
            image.data >> 20,
            image.len >> 20,
            image.path.display()
        );
    }
    let mut results: Vec<Vec<Run>> = contenders.iter().map(|_| Vec::new()).collect();
    let mut floors: Vec<Vec<f64>> = FLOORS.iter().map(|_| Vec::new()).collect();
    for turn in 1..=runs {
        for (floor, seconds) in floors.iter_mut().zip(measure_floors(&images, &tools, work.path())) {
            floor.push(seconds);
        }
        for (contender, results) in contenders.iter().zip(&mut results) {
            if results
                .iter()
                .any(|run: &Run| run.steps.iter().map(|step| step.seconds).sum::<f64>() > patience)
            {
                continue;
            }
            let folder = work.path().join("turn");
            fs::create_dir(&folder).unwrap();
            let run = contender.run(&images, &folder);
            println!(
                "turn {turn}: {:<24} {}",
                contender.name,
                run.steps.iter().map(|step| format!("{:6.2}", step.seconds)).collect::<Vec<_>>().join(" ")
            );
            fs::remove_dir_all(&folder).unwrap();
            results.push(run);
        }
    }
    report(&contenders, &results, &floors, &images, &[tools, desync], runs);
}

// ---------------------------------------------------------------------------------------------------------- images

/// A raw image of the series.
struct Image {
    name: String,
    path: PathBuf,
    len: u64,
    /// Bytes of blocks that are not all zero.
    data: u64,
    ids: Vec<(u64, Digest)>,
}

impl Image {
    fn named(name: &str, path: &Path) -> Self {
        let ids = ids(path);
        Self {
            name: name.to_owned(),
            path: path.to_owned(),
            len: fs::metadata(path).unwrap().len(),
            data: ids.len() as u64 * block::BLOCK_SIZE,
            ids,
        }
    }

    fn own(path: &Path) -> Self {
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        Self::named(
            &name,
            &fs::canonicalize(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())),
        )
    }

    /// Whether a file holds the same bytes.
    fn assert_same(&self, path: &Path, who: &str) {
        assert_eq!(
            fs::metadata(path).unwrap().len(),
            self.len,
            "{who}: {} came back in another length",
            self.name
        );
        assert!(ids(path) == self.ids, "{who}: {} came back otherwise than it went in", self.name);
    }
}

fn ids(path: &Path) -> Vec<(u64, Digest)> {
    block::block_ids(&RawFile::open(path).unwrap_or_else(|error| panic!("{error}"))).unwrap()
}

/// The series, in order.
const SERIES: [Step; 4] = [
    Step { name: "first", updates: false, page: "Good morning", more: "" },
    Step { name: "one line changed", updates: false, page: "Good evening", more: "" },
    Step { name: "security updates", updates: true, page: "Good evening", more: "" },
    Step { name: "sibling", updates: true, page: "Good evening", more: ", php-fpm, mariadb-server" },
];

/// The series, baked where it is not in the cache yet.
fn series(cache: &Path) -> Vec<Image> {
    let folder = cache.join("bench/series");
    fs::create_dir_all(&folder).unwrap();
    let image = |step: &Step| {
        println!("the image `{}` of the series", step.name);
        Image::named(step.name, &series::disk(&folder, cache, step, 2, None))
    };
    let images = SERIES.iter().map(image).collect();
    // What the bakes themselves kept is not asked for again.
    let _ = fs::remove_dir_all(folder.join("bakes"));
    images
}

// ------------------------------------------------------------------------------------------------------ contenders

const OURS: &str = "bakehouse";

/// How a program is told to do things, in a folder of its own. `{image}`, `{out}`, `{n}` are replaced.
struct Contender {
    name: &'static str,
    /// What is run before the first step, unmeasured.
    init: Vec<Vec<String>>,
    put: Vec<String>,
    get: Vec<String>,
    /// Onto a file that holds the image before: `None` where the program knows no such thing.
    update: Option<Vec<String>>,
    /// Where the data is.
    store: &'static str,
    env: Vec<(&'static str, String)>,
}

/// What one command took.
#[derive(Clone, Copy, Default)]
struct Took {
    seconds: f64,
    /// Peak resident memory in bytes, sampled.
    memory: u64,
}

/// One contender's way through the series.
struct Run {
    /// The puts in order, the last image put again, the first got, the last got onto the one before.
    steps: Vec<Took>,
    /// Bytes of the store after each put.
    sizes: Vec<u64>,
}

fn words(line: &str) -> Vec<String> {
    line.split(' ').map(str::to_owned).collect()
}

fn contenders(tools: &Tools, desync: &Tools) -> Vec<Contender> {
    let program_of = |tools: &Tools, name: &str| {
        tools.program(name).unwrap_or_else(|error| panic!("{error}")).display().to_string()
    };
    let ours = env!("CARGO_BIN_EXE_bakehouse");
    let program = |name| program_of(tools, name);
    let (casync, restic) = (program("casync"), program("restic"));
    let desync = program_of(desync, "desync");
    let borg = format!("{} {}", program("python3"), tools.root().join("usr/bin/borg").display());
    let quiet_borg = vec![
        ("BORG_BASE_DIR", "borg-base".to_owned()),
        ("BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK", "yes".into()),
        ("BORG_RELOCATED_REPO_ACCESS_IS_OK", "yes".into()),
    ];
    let quiet_restic = vec![("RESTIC_PASSWORD", "x".to_owned()), ("RESTIC_CACHE_DIR", "restic-cache".into())];
    let desync_as = |name, global: &str, make: &str| Contender {
        name,
        init: vec![words("mkdir store")],
        put: words(&format!("{desync}{global} make{make} -s store {{n}}.caibx {{image}}")),
        get: words(&format!("{desync}{global} extract -s store {{n}}.caibx {{out}}")),
        // In place: what the file has already is not written again.
        update: Some(words(&format!("{desync}{global} extract -k -s store {{n}}.caibx {{out}}"))),
        store: "store",
        env: Vec::new(),
    };
    let casync_as = |name, make: &str| Contender {
        name,
        init: Vec::new(),
        put: words(&format!("{casync} make{make} --store=store.castr {{n}}.caibx {{image}}")),
        get: words(&format!("{casync} extract --store=store.castr {{n}}.caibx {{out}}")),
        // It gives up with "Stale file handle" on a file that holds another image.
        update: None,
        store: "store.castr",
        env: Vec::new(),
    };
    let borg_as = |name, create: &str| Contender {
        name,
        init: vec![words(&format!("{borg} init --encryption=none store"))],
        put: words(&format!("{borg} create{create} store::{{n}} {{image}}")),
        get: words(&format!("{borg} extract --sparse store::{{n}}")),
        update: None,
        store: "store",
        env: quiet_borg.clone(),
    };
    let restic_as = |name, backup: &str| Contender {
        name,
        init: vec![words(&format!("{restic} init --quiet --repo store"))],
        put: words(&format!("{restic} backup --quiet --repo store --tag t{{n}}{backup} {{image}}")),
        get: words(&format!(
            "{restic} restore --quiet --repo store --sparse --target got --tag t{{n}} latest"
        )),
        update: None,
        store: "store",
        env: quiet_restic.clone(),
    };
    vec![
        Contender {
            name: OURS,
            init: Vec::new(),
            put: words(&format!("{ours} store put {{image}} --name n{{n}} --store store --json")),
            get: words(&format!("{ours} store get n{{n}} {{out}} --store store --json")),
            update: Some(words(&format!("{ours} store get n{{n}} {{out}} --store store --json"))),
            store: "store",
            env: Vec::new(),
        },
        desync_as("desync", "", ""),
        desync_as("desync, at its fastest", " --digest sha256", " -m 256:1024:4096"),
        casync_as("casync", ""),
        casync_as("casync, at its fastest", " --chunk-size=1048576 --digest=sha256"),
        borg_as("borg", ""),
        borg_as("borg, at its fastest", " --sparse --chunker-params=fixed,1048576"),
        restic_as("restic", ""),
        restic_as("restic, at its fastest", " --compression off --read-concurrency 2 --pack-size 64"),
    ]
}

impl Contender {
    fn run(&self, images: &[Image], folder: &Path) -> Run {
        let mut run = Run { steps: Vec::new(), sizes: Vec::new() };
        for init in &self.init {
            self.command(init, folder, None);
        }
        for (number, image) in images.iter().enumerate() {
            run.steps.push(self.command(&self.put, folder, Some((image, number, ""))));
            run.sizes.push(size(&folder.join(self.store)));
        }
        let last = images.len() - 1;
        // Under another number: the same data, not the same command.
        run.steps.push(self.command(&self.put, folder, Some((&images[last], last + 1, ""))));
        run.sizes.push(size(&folder.join(self.store)));
        let got = folder.join("got.raw");
        run.steps.push(self.command(&self.get, folder, Some((&images[FIRST], FIRST, "got.raw"))));
        let place = self.place(&got, &images[FIRST], folder);
        images[FIRST].assert_same(&place, self.name);
        let update = self.update.as_ref().map_or_else(Took::default, |update| {
            let step = self.command(update, folder, Some((&images[2.min(last)], 2.min(last), "got.raw")));
            images[2.min(last)].assert_same(&place, self.name);
            step
        });
        run.steps.push(update);
        run
    }

    /// Where a restored image is: some write it below its own path.
    fn place(&self, got: &Path, image: &Image, folder: &Path) -> PathBuf {
        let relative = image.path.strip_prefix("/").unwrap_or(&image.path);
        [got.to_owned(), folder.join(relative), folder.join("got").join(relative)]
            .into_iter()
            .find(|place| place.exists())
            .unwrap_or_else(|| panic!("{}: {} came back nowhere", self.name, image.name))
    }

    fn command(&self, line: &[String], folder: &Path, what: Option<(&Image, usize, &str)>) -> Took {
        let replaced: Vec<String> = line
            .iter()
            .map(|word| match what {
                Some((image, number, out)) => word
                    .replace("{image}", &image.path.display().to_string())
                    .replace("{n}", &number.to_string())
                    .replace("{out}", out),
                None => word.clone(),
            })
            .collect();
        let env: Vec<(&str, String)> = self
            .env
            .iter()
            .map(|(name, value)| {
                let is_folder = name.ends_with("DIR");
                (*name, if is_folder { folder.join(value).display().to_string() } else { value.clone() })
            })
            .collect();
        measure(&replaced, folder, &env)
    }
}

/// Runs a program to its end; a failure ends the bench with what it said.
fn measure(line: &[String], folder: &Path, env: &[(&str, String)]) -> Took {
    rustix::fs::sync();
    let log = folder.join("log");
    let output = fs::File::create(&log).unwrap();
    let start = Instant::now();
    let mut child = Command::new(&line[0])
        .args(&line[1..])
        .current_dir(folder)
        .envs(env.iter().map(|(name, value)| (*name, value)))
        .stdin(Stdio::null())
        .stdout(output.try_clone().unwrap())
        .stderr(output)
        .spawn()
        .unwrap_or_else(|error| panic!("{}: {error}", line[0]));
    let (done, peak) = (AtomicBool::new(false), AtomicU64::new(0));
    let status_file = format!("/proc/{}/status", child.id());
    let (status, seconds) = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                let text = fs::read_to_string(&status_file).unwrap_or_default();
                let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
                let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
                peak.fetch_max(kib.unwrap_or(0) << 10, Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(4));
            }
        });
        let status = child.wait().unwrap();
        let seconds = start.elapsed().as_secs_f64();
        done.store(true, Ordering::Relaxed);
        (status, seconds)
    });
    let said = fs::read_to_string(&log).unwrap_or_default();
    assert!(status.success(), "{}: {status}\n{said}", line.join(" "));
    Took { seconds, memory: peak.into_inner() }
}

// ---------------------------------------------------------------------------------------------------------- floors

const FLOORS: [&str; 5] = [
    "SHA-256 of the first image's data, all cores, in memory",
    "`zstd -3 -T0` of the first image's data",
    "`zstd -d` of it",
    "`cp --sparse=always` of the first image",
    "SHA-256 of the second image's data",
];

fn measure_floors(images: &[Image], tools: &Tools, work: &Path) -> [f64; 5] {
    let folder = work.join("floors");
    fs::create_dir(&folder).unwrap();
    let timed = |path: &Path| {
        let disk = RawFile::open(path).unwrap();
        let start = Instant::now();
        block::block_ids(&disk).unwrap();
        start.elapsed().as_secs_f64()
    };
    let (first, second) = (timed(&images[0].path), timed(&images[1].path));
    // The data without the holes: zstd would read them.
    let dense = folder.join("dense");
    dense_copy(&images[FIRST].path, &dense);
    let zstd = tools.program("zstd").unwrap().display().to_string();
    let seconds = |line: &str| measure(&words(line), &folder, &[]).seconds;
    let compress = seconds(&format!("{zstd} -q -f -3 -T0 dense -o dense.zst"));
    let decompress = seconds(&format!("{zstd} -q -f -d dense.zst -o dense.back"));
    let copy = seconds(&format!("cp --sparse=always {} copy", images[FIRST].path.display()));
    fs::remove_dir_all(&folder).unwrap();
    [first, compress, decompress, copy, second]
}

/// All blocks of an image that hold data, one after the other.
fn dense_copy(path: &Path, to: &Path) {
    use std::io::Write;
    let disk = RawFile::open(path).unwrap();
    let mut file = std::io::BufWriter::new(fs::File::create(to).unwrap());
    let mut buffer = vec![0; usize::try_from(block::BLOCK_SIZE).unwrap()];
    for (index, _) in block::block_ids(&disk).unwrap() {
        let offset = index * block::BLOCK_SIZE;
        let len = usize::try_from(block::BLOCK_SIZE.min(disk.len() - offset)).unwrap();
        disk.read_at(offset, &mut buffer[..len]).unwrap();
        file.write_all(&buffer[..len]).unwrap();
    }
    file.flush().unwrap();
}

// ---------------------------------------------------------------------------------------------------------- report

fn report(
    contenders: &[Contender],
    results: &[Vec<Run>],
    floors: &[Vec<f64>],
    images: &[Image],
    tools: &[Tools],
    runs: usize,
) {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    println!("\n{cores} cores, Linux {}, {runs} runs of each, in turns; medians\n", kernel.trim());
    let versions = tools.iter().flat_map(Tools::packages).filter(|package| {
        ["borgbackup", "casync", "desync", "restic", "zstd"].contains(&package.name.as_str())
    });
    let versions: Vec<_> = versions.map(|package| format!("{} {}", package.name, package.version)).collect();
    println!("{}\n", versions.join(", "));
    let mut columns: Vec<String> = images.iter().map(|image| format!("put {}", image.name)).collect();
    columns.push("put the last again".into());
    columns.push("get the first".into());
    columns.push("get another onto it".into());
    println!("Seconds, and how many times ours:\n\n| | {} |", columns.join(" | "));
    println!("| --- |{}", " ---: |".repeat(columns.len()));
    let at = |runs: &[Run], step: usize| median(runs.iter().map(|run| run.steps[step].seconds).collect());
    for (contender, runs) in contenders.iter().zip(results) {
        let cells = (0..columns.len()).map(|step| match (at(runs, step), at(&results[0], step)) {
            (0.0, _) => "–".to_owned(),
            (own, _) if contender.name == OURS => format!("{own:.2}"),
            (theirs, ours) => format!("{theirs:.2}, {:.1} ×", theirs / ours),
        });
        let once = if runs.len() < results[0].len() { " (one run)" } else { "" };
        println!("| {}{once} | {} |", contender.name, cells.collect::<Vec<_>>().join(" | "));
    }
    println!("\nGrowth of the store, MB:\n\n| | {} |", columns[..=images.len()].join(" | "));
    println!("| --- |{}", " ---: |".repeat(images.len() + 1));
    for (contender, runs) in contenders.iter().zip(results) {
        let sizes = &runs[0].sizes;
        let before = |step: usize| if step == 0 { 0 } else { sizes[step - 1] };
        let cells = (0..sizes.len()).map(|step| mb(sizes[step].saturating_sub(before(step))));
        println!("| {} | {} |", contender.name, cells.collect::<Vec<_>>().join(" | "));
    }
    println!("\nPeak memory, MB (resident, sampled every 4 ms, the largest of all runs):\n\n| | put | get |");
    println!("| --- | ---: | ---: |");
    for (contender, runs) in contenders.iter().zip(results) {
        let most = |steps: std::ops::Range<usize>| {
            runs.iter().flat_map(|run| &run.steps[steps.clone()]).map(|step| step.memory).max().unwrap_or(0)
        };
        let puts = images.len() + 1;
        println!("| {} | {} | {} |", contender.name, mb(most(0..puts)), mb(most(puts..columns.len())));
    }
    println!("\nFloors, seconds:\n\n| | median | min-max |\n| --- | ---: | ---: |");
    for (name, seconds) in FLOORS.iter().zip(floors) {
        let least = seconds.iter().copied().fold(f64::INFINITY, f64::min);
        let most = seconds.iter().copied().fold(0.0, f64::max);
        println!("| {name} | {:.2} | {least:.2}-{most:.2} |", median(seconds.clone()));
    }
}

fn mb(bytes: u64) -> String {
    format!("{:.1}", bytes as f64 / 1e6)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    (values[(values.len() - 1) / 2] + values[values.len() / 2]) / 2.0
}
