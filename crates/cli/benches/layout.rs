//! What a nightly image costs: a series of images in our layout, and the very same files in the layout of `mke2fs -d`. For each step the
//! blocks of 512 KiB that the step before did not have, over the bytes of files whose content is new; and how much the stores
//! grow by it: ours, and borg's and desync's on the stock images. Each image is baked once more against the one before it as its parent.
//!
//! `--keep` leaves the images in the cache, where the next run finds them. Nothing is timed.
#![allow(clippy::print_stdout, reason = "a bench tells its results there")]

#[path = "../tests/peer/peers.rs"]
#[allow(dead_code, reason = "shared with the test that runs mmdebstrap")]
mod peers;
mod series;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use block::{BLOCK_SIZE, BlockSource, Digest};
use formats::RawFile;
use inspect::PartitionContent;
use peers::cache_folder;
use series::{Step, size};
use tools::{Set, Tools};

/// The series, in order.
const SERIES: [Step; 4] = [
    Step { name: "first image", updates: false, page: "Good morning", more: "" },
    Step { name: "security updates", updates: true, page: "Good morning", more: "" },
    Step { name: "one line changed", updates: true, page: "Good evening", more: "" },
    Step {
        name: "sibling with more packages",
        updates: true,
        page: "Good evening",
        more: ", php-fpm, mariadb-server",
    },
];
const STOCK_UUID: &str = "5a0e6b52-112f-8c4d-9e01-773cd45e6f80";

fn main() {
    let keep = std::env::args().any(|word| word == "--keep");
    let cache = cache_folder();
    let folder = cache.join("bench/layout");
    fs::create_dir_all(&folder).unwrap();
    let others = [peers::tools(Set::Stores), peers::tools(Set::Desync)];
    let mut steps: Vec<Made> = Vec::new();
    for step in &SERIES {
        println!("{}: baking it, and laying the same files out with mke2fs -d", step.name);
        let made = make(&folder, &cache, step, steps.last());
        steps.push(made);
    }
    let growth = growth(&folder, &others, &steps);
    report(&steps, &growth, &others);
    if !keep {
        fs::remove_dir_all(&folder).unwrap();
    }
}

/// An image of the series in all layouts.
struct Made {
    ours: Image,
    /// The same files against the image before, which itself was baked against the one before it.
    child: Image,
    /// A disk of our root file system alone has no partitions; so has mke2fs's.
    stock: Image,
    /// Lengths of files' contents by digest.
    contents: BTreeMap<Digest, u64>,
}

struct Image {
    path: PathBuf,
    /// Index to id, and how many bytes of the block are data: not in a hole.
    blocks: BTreeMap<u64, (Digest, u64)>,
}

impl Image {
    fn read(path: PathBuf) -> Self {
        let disk = RawFile::open(&path).unwrap_or_else(|error| panic!("{error}"));
        let mut data: BTreeMap<u64, u64> = BTreeMap::new();
        for (offset, len) in disk.data() {
            let (mut at, end) = (offset, offset + len);
            while at < end {
                let stop = end.min((at / BLOCK_SIZE + 1) * BLOCK_SIZE);
                *data.entry(at / BLOCK_SIZE).or_default() += stop - at;
                at = stop;
            }
        }
        let ids = block::block_ids(&disk).unwrap();
        let blocks = ids.into_iter().map(|(index, id)| (index, (id, data.get(&index).copied().unwrap_or(0))));
        Self { blocks: blocks.collect(), path }
    }
}

/// What of an image was not in the one before.
#[derive(Clone, Copy, Default)]
struct New {
    blocks: u64,
    /// Of them, what is not in holes.
    data: u64,
    /// Indexes whose content is another.
    indexes: u64,
}

impl New {
    fn of(before: Option<&Image>, image: &Image) -> Self {
        let known: BTreeSet<Digest> =
            before.iter().flat_map(|before| before.blocks.values()).map(|(id, _)| *id).collect();
        let mut new = Self::default();
        for (id, data) in image.blocks.values() {
            if !known.contains(id) {
                new.blocks += 1;
                new.data += data;
            }
        }
        let at = |image: &Image, index| image.blocks.get(&index).map(|(id, _)| *id);
        let indexes: BTreeSet<u64> = before
            .iter()
            .flat_map(|before| before.blocks.keys())
            .chain(image.blocks.keys())
            .copied()
            .collect();
        new.indexes = indexes
            .into_iter()
            .filter(|index| before.and_then(|before| at(before, *index)) != at(image, *index))
            .count() as u64;
        new
    }
}

fn run(program: &str, arguments: &[&str], env: &[(&str, &str)]) {
    let listed = std::env::var_os("BAKEHOUSE_TOOLS_PATH")
        .expect("`cargo xtask bench layout` names the checkers' folder");
    let path = std::env::split_paths(&listed).map(|folder| folder.join(program)).find(|path| path.is_file());
    let path = path.unwrap_or_else(|| PathBuf::from(program));
    let mut command = Command::new(&path);
    command.args(arguments).envs(env.iter().copied()).env("LC_ALL", "C").stdin(Stdio::null());
    let output = command.output().unwrap_or_else(|error| panic!("{program}: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {}: {}\n{said}", arguments.join(" "), output.status);
}

fn make(folder: &Path, cache: &Path, step: &Step, before: Option<&Made>) -> Made {
    let ours = series::disk(folder, cache, step, 4, None);
    let child = match before {
        Some(before) => series::disk(folder, cache, step, 4, Some(&before.child.path)),
        None => ours.clone(),
    };
    let (stock, tree) = (ours.with_extension("stock.raw"), ours.with_extension("tree"));
    let disk = RawFile::open(&ours).unwrap();
    let partitions = inspect::partitions(&disk).unwrap();
    let root = partitions.iter().max_by_key(|partition| partition.len).expect("the disk has partitions");
    let PartitionContent::Files(files) = &root.content else { panic!("the root partition has no files") };
    let offset = format!("{}?offset={}", ours.display(), root.offset);
    let _ = fs::remove_dir_all(&tree);
    fs::create_dir(&tree).unwrap();
    run("debugfs", &["-R", &format!("rdump / {}", tree.display()), &offset], &[]);
    let mut contents = BTreeMap::new();
    let mut found = 0;
    hash_files(&tree, &mut contents, &mut found);
    assert!(found + 100 > files.names.len(), "debugfs gave {found} of {} names", files.names.len());
    if !stock.exists() {
        let part = stock.with_extension("part");
        let _ = fs::remove_file(&part);
        fs::File::create(&part).unwrap().set_len(root.len).unwrap();
        let (part, tree) = (part.display().to_string(), tree.display().to_string());
        let seed = format!("hash_seed={STOCK_UUID},lazy_itable_init=1");
        let made = ["-q", "-F", "-t", "ext4", "-U", STOCK_UUID, "-E", &seed, "-d", &tree, &part];
        run("mke2fs", &made, &[("SOURCE_DATE_EPOCH", "1700000000"), ("E2FSPROGS_FAKE_TIME", "1700000000")]);
        fs::rename(&part, &stock).unwrap();
    }
    fs::remove_dir_all(&tree).unwrap();
    Made { ours: Image::read(ours), child: Image::read(child), stock: Image::read(stock), contents }
}

fn hash_files(folder: &Path, contents: &mut BTreeMap<Digest, u64>, found: &mut usize) {
    for entry in fs::read_dir(folder).unwrap() {
        let (path, kind) = entry.map(|entry| (entry.path(), entry.file_type().unwrap())).unwrap();
        *found += 1;
        if kind.is_dir() {
            hash_files(&path, contents, found);
        } else if kind.is_file() {
            let bytes = fs::read(&path).unwrap();
            contents.insert(Digest::of(&bytes), bytes.len() as u64);
        }
    }
}

/// A store that images are put into.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Store {
    Ours,
    Borg,
    Desync,
}

/// Bytes by which each store grows at each step: ours with our images, ours and the others' with the stock ones.
fn growth(folder: &Path, others: &[Tools; 2], steps: &[Made]) -> Vec<(&'static str, Vec<u64>)> {
    let program = |tools: &Tools, name: &str| {
        tools.program(name).unwrap_or_else(|error| panic!("{error}")).display().to_string()
    };
    let borg = others[0].root().join("usr/bin/borg").display().to_string();
    let (python, desync) = (program(&others[0], "python3"), program(&others[1], "desync"));
    let mut all = Vec::new();
    for (name, kind, is_stock) in [
        ("our layout in our store", Store::Ours, false),
        ("mke2fs -d in our store", Store::Ours, true),
        ("mke2fs -d in borg", Store::Borg, true),
        ("mke2fs -d in desync", Store::Desync, true),
    ] {
        let work = folder.join("growth");
        let _ = fs::remove_dir_all(&work);
        fs::create_dir(&work).unwrap();
        let base = work.join("base").display().to_string();
        let env = [("BORG_BASE_DIR", base.as_str()), ("BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK", "yes")];
        let store = work.join("store");
        let at = store.display().to_string();
        match kind {
            Store::Ours => {}
            Store::Borg => run(&python, &[&borg, "init", "--encryption=none", &at], &env),
            Store::Desync => fs::create_dir(&store).unwrap(),
        }
        let mut sizes = vec![size(&store)];
        for (number, step) in steps.iter().enumerate() {
            let image = if is_stock { &step.stock } else { &step.ours }.path.display().to_string();
            let name = format!("n{number}");
            match kind {
                Store::Ours => {
                    let put = ["store", "put", &image, "--name", &name, "--store", &at, "--json"];
                    run(env!("CARGO_BIN_EXE_bakehouse"), &put, &[]);
                }
                Store::Borg => run(&python, &[&borg, "create", &format!("{at}::{name}"), &image], &env),
                Store::Desync => {
                    // In the store, for its index is a part of what a snapshot takes.
                    let index = store.join(format!("{name}.caibx")).display().to_string();
                    run(&desync, &["make", "-s", &at, &index, &image], &[]);
                }
            }
            sizes.push(size(&store));
        }
        all.push((name, sizes.windows(2).map(|pair| pair[1].saturating_sub(pair[0])).collect()));
        fs::remove_dir_all(&work).unwrap();
    }
    all
}

fn mb(bytes: u64) -> String {
    format!("{:.1}", bytes as f64 / 1e6)
}

fn report(steps: &[Made], growth: &[(&str, Vec<u64>)], others: &[Tools]) {
    let packages = others.iter().flat_map(Tools::packages);
    let named = packages.filter(|package| ["borgbackup", "desync"].contains(&package.name.as_str()));
    let versions: Vec<_> = named.map(|package| format!("{} {}", package.name, package.version)).collect();
    println!("\n{}\n", versions.join(", "));
    let columns: Vec<&str> = SERIES.iter().map(|step| step.name).collect();
    println!(
        "MB; in brackets how many times the bytes of files whose content is new, and of indexes how many times the new \
         blocks:\n\n| | {} |",
        columns.join(" | ")
    );
    println!("| --- |{}", " ---: |".repeat(columns.len()));
    let before = |number: usize| number.checked_sub(1).map(|before| &steps[before]);
    let floors: Vec<u64> = (0..steps.len())
        .map(|number| {
            let known = before(number).map(|step| &step.contents);
            let new = steps[number].contents.iter();
            new.filter(|(id, _)| known.is_none_or(|known| !known.contains_key(id))).map(|(_, len)| len).sum()
        })
        .collect();
    let row = |name: &str, values: &dyn Fn(usize) -> String| {
        let cells: Vec<String> = (0..steps.len()).map(values).collect();
        println!("| {name} | {} |", cells.join(" | "));
    };
    let times = |bytes: u64, number: usize| match floors[number] {
        floor if floor > 100_000 => format!("{} ({:.2})", mb(bytes), bytes as f64 / floor as f64),
        _ => mb(bytes),
    };
    row("files whose content is new", &|number| mb(floors[number]));
    type Layout = (&'static str, fn(&Made) -> &Image);
    let layouts: [Layout; 3] = [
        ("our layout", |step| &step.ours),
        ("against the image before", |step| &step.child),
        ("mke2fs -d", |step| &step.stock),
    ];
    for (name, image) in layouts {
        let new = |number: usize| New::of(before(number).map(image), image(&steps[number]));
        row(&format!("{name}: data in new blocks"), &|number| times(new(number).data, number));
        row(&format!("{name}: new blocks, whole"), &|number| times(new(number).blocks * BLOCK_SIZE, number));
        row(&format!("{name}: new blocks"), &|number| new(number).blocks.to_string());
        row(&format!("{name}: indexes that differ"), &|number| {
            let New { blocks, indexes, .. } = new(number);
            format!("{indexes} ({:.2})", indexes as f64 / blocks.max(1) as f64)
        });
    }
    println!("\nGrowth of the store, MB:\n\n| | {} |", columns.join(" | "));
    println!("| --- |{}", " ---: |".repeat(columns.len()));
    for (name, grown) in growth {
        row(name, &|number| mb(grown[number]));
    }
}
