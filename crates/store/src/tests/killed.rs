//! A process that puts, forgets and collects is killed again and again.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::collect::{VERIFY, gc, gc_times};
use super::*;

/// Names the store's folder to the child.
const FOLDER: &str = "BAKEHOUSE_TEST_KILLED_STORE";
/// How often the child is killed.
const ROUNDS: u64 = 25;

fn disk_of(number: u64) -> BlockMap {
    let pieces: Vec<_> = (0..4).map(|at| (at * BLOCK_SIZE, noise(number / 2 + at, 60_000))).collect();
    disk(4 * BLOCK_SIZE, &pieces)
}

fn open(folder: &Path) -> Arc<Store> {
    Arc::new(Store::create_with(Arc::new(LocalBackend::new(folder)), small()).unwrap())
}

/// The child: works until it is killed, and says what is done. Does nothing when it is run as a test.
#[test]
fn child_that_is_killed() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let store = open(Path::new(&folder));
    let mut number = store.list().unwrap().last().map_or(0, |last| last.sequence);
    loop {
        number += 1;
        tell(&format!("putting {number}"));
        put(&store, &format!("n{number}"), &disk_of(number));
        tell(&format!("put {number}"));
        let records = store.list().unwrap();
        if records.len() > 5 {
            tell(&format!("forgetting {}", records[0].name));
            store.forget(&[records[0].id]).unwrap();
            tell(&format!("forgotten {}", records[0].name));
        }
        if number.is_multiple_of(3) {
            gc(&store);
        }
    }
}

fn tell(line: &str) {
    use std::io::Write;
    // Past the test harness, which would hold it back.
    let mut out = std::io::stdout().lock();
    out.write_all(format!("\nTOLD {line}\n").as_bytes()).unwrap();
    out.flush().unwrap();
}

#[test]
fn a_killed_process_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    drop(open(folder.path()));
    let mut there: Vec<u64> = Vec::new();
    for round in 0..ROUNDS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "tests::killed::child_that_is_killed", "--nocapture", "--test-threads=1"])
            .env(FOLDER, folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let out = child.stdout.take().unwrap();
        let reader = std::thread::spawn(move || {
            let lines = BufReader::new(out).lines().map_while(Result::ok);
            lines.filter_map(|line| line.strip_prefix("TOLD ").map(str::to_owned)).collect::<Vec<_>>()
        });
        // Long enough to begin, and each time a little further.
        std::thread::sleep(Duration::from_millis(150 + round * 37));
        child.kill().unwrap();
        child.wait().unwrap();
        let mut doubtful = Vec::new();
        for line in reader.join().unwrap() {
            let (what, of) = line.split_once(' ').unwrap();
            let number: u64 = of.trim_start_matches('n').parse().unwrap();
            match what {
                "put" => there.push(number),
                "forgotten" => there.retain(|other| *other != number),
                // Begun: it may be either way, until it is told to be done.
                _ => doubtful.push(number),
            }
        }
        let store = open(folder.path());
        let records = store.list().unwrap();
        for record in &records {
            let number: u64 = record.name.trim_start_matches('n').parse().unwrap();
            assert!(there.contains(&number) || doubtful.contains(&number), "{} came back", record.name);
            let back = store.disk(record).unwrap();
            assert!(bytes_of(&back) == bytes_of(&disk_of(number)), "{} after round {round}", record.name);
        }
        for number in &there {
            let found = records.iter().any(|record| record.name == format!("n{number}"));
            assert!(found || doubtful.contains(number), "n{number} is lost after round {round}");
        }
        there = records.iter().map(|record| record.name.trim_start_matches('n').parse().unwrap()).collect();
        assert!(store.verify(&VERIFY).unwrap().is_whole());
    }
    let store = open(folder.path());
    assert!(store.list().unwrap().len() >= 5, "the child got somewhere");
    gc_times(&store, 1);
    let left = std::fs::read_dir(folder.path().join("tmp")).unwrap().count();
    assert_eq!(left, 0, "a collection takes away what the killed left");
    assert!(store.verify(&VERIFY).unwrap().is_whole());
}
