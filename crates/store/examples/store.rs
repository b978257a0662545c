//! Puts and gets raw images and says how long it took; `ids` reads and hashes a file and does nothing else.
#![allow(clippy::print_stdout, reason = "an example for a terminal")]

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use store::{Existing, GetOptions, LocalBackend, Options, PutOptions, Source, Store, VerifyOptions};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let begin = Instant::now();
    let mut options = Options::default();
    if let Ok(level) = std::env::var("LEVEL") {
        options.level = level.parse()?;
    }
    if let Ok(threads) = std::env::var("THREADS") {
        options.threads = threads.parse()?;
    }
    match arguments[..] {
        ["put", store, file, name] => {
            let store = Store::create_with(Arc::new(LocalBackend::new(Path::new(store))), options)?;
            let options =
                PutOptions { name, id: store::ChosenId::Derived, parent: None, time: 0, progress: &() };
            println!("{:?}", store.put(Source::File(Path::new(file)), &options)?);
        }
        ["get", store, name, file] => {
            let store = Store::open_with(Arc::new(LocalBackend::new(Path::new(store))), options)?;
            let options = GetOptions { existing: Existing::Update, sync: false, progress: &() };
            println!("{:?}", store.get(&store.find(name)?, Path::new(file), &options)?);
        }
        ["ids", file] => {
            let file = formats::RawFile::open(Path::new(file))?;
            println!("{} blocks", block::block_ids(&file)?.len());
        }
        ["verify", store] => {
            let store = Store::open_with(Arc::new(LocalBackend::new(Path::new(store))), options)?;
            let options = VerifyOptions { part: None, quarantine: false, progress: &() };
            println!("{:?}", store.verify(&options)?);
        }
        ["ls", store] => {
            let store = Store::open(Arc::new(LocalBackend::new(Path::new(store))))?;
            for record in store.list()? {
                println!("{} {} {} {}", record.id, record.size, record.blocks, record.name);
            }
        }
        _ => {
            return Err(
                "store put STORE FILE NAME | get STORE NAME FILE | ls STORE | verify STORE | ids FILE".into(),
            );
        }
    }
    println!("{:.3} s", begin.elapsed().as_secs_f64());
    Ok(())
}
