//! What one large volume without holes takes of memory: `large FOLDER BLOCKS zeros|alike|new`, each step with the most so far.
#![allow(clippy::print_stdout, reason = "an example for a terminal")]

use std::error::Error;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use block::{BLOCK_SIZE, BlockSource};
use store::{ChosenId, GcOptions, LocalBackend, PutOptions, Source, Store, VerifyOptions};

/// A disk that is all data, made as it is read.
struct Large {
    blocks: u64,
    /// What the first bytes of a block say.
    begins: fn(u64) -> u64,
}

impl BlockSource for Large {
    fn len(&self) -> u64 {
        self.blocks * BLOCK_SIZE
    }

    fn data(&self) -> Box<dyn Iterator<Item = (u64, u64)> + Send + '_> {
        Box::new(std::iter::once((0, self.len())))
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        buf.fill(0);
        for block in buf.chunks_mut(BLOCK_SIZE as usize) {
            block[..8].copy_from_slice(&(self.begins)(offset / BLOCK_SIZE).to_le_bytes());
        }
        Ok(())
    }
}

/// What a process used at most, in MiB.
fn peak() -> Result<u64, Box<dyn Error>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("no VmHWM")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? / 1024)
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, blocks, kind] = &arguments[..] else {
        return Err("large FOLDER BLOCKS zeros|alike|new".into());
    };
    let begins = match kind.as_str() {
        "zeros" => |_| 0,
        "alike" => |_| 7,
        "new" => |at| at + 1,
        _ => return Err("zeros, alike or new".into()),
    };
    let disk = Large { blocks: blocks.parse()?, begins };
    let store = Store::create(Arc::new(LocalBackend::new(Path::new(folder))))?;
    let begin = Instant::now();
    let say = |what: &str| -> Result<(), Box<dyn Error>> {
        println!("{what:8} {:8.1} s, peak {:5} MiB", begin.elapsed().as_secs_f64(), peak()?);
        Ok(())
    };
    say("begin")?;
    let options = PutOptions { name: "large", id: ChosenId::Derived, parent: None, time: 0, progress: &() };
    store.put(Source::Disk(&disk), &options)?;
    say("put")?;
    store.plan_gc(&())?;
    say("mark")?;
    store.verify(&VerifyOptions { part: None, quarantine: false, progress: &() })?;
    say("verify")?;
    store.forget(&[store.find("large")?.id])?;
    store.execute_gc(&GcOptions { wait: true, progress: &() })?;
    say("collect")
}
