#![allow(clippy::print_stdout)]
#[path = "peer/peers.rs"]
mod peers;
use peers::*;
fn main() {
    sandbox::enter().unwrap();
    let work = work_folder();
    let recipe = work.path().join("peer.yaml");
    std::fs::write(&recipe, RECIPE).unwrap();
    let ingredients = ingredients(&recipe);
    let ours = work.path().join("ours");
    std::fs::create_dir(&ours).unwrap();
    let start = std::time::Instant::now();
    let boot = rootfs::Boot { root_uuid: block::derived_uuid("peer", "/dev/xvda", "root"), esp_id: 0x1234_abcd, mounts: vec![] };
    let built = rootfs::build(&rootfs::Request { recipe: &ingredients.recipe, packages: &ingredients.files, time: ingredients.lock.time, work: &ours, boot, progress: &() }).unwrap();
    println!("ours {:?}", start.elapsed());
    let time = built.tree.get(&tree::TreePath::root()).unwrap().meta.mtime.seconds;
    let peers = Peers::new(&ingredients, work.path(), time);
    let start = std::time::Instant::now();
    let log = peers.mmdebstrap("theirs");
    println!("theirs {:?}\n{log}", start.elapsed());
    let theirs = rootfs::scan(&work.path().join("theirs")).unwrap();
    for d in rootfs::compare(&built.tree, &theirs) {
        if !matches!(d.kind, rootfs::DifferenceKind::Time(..)) { println!("DIFF {d}"); }
    }
    println!("kept {:?}", work.keep());
}
const RECIPE: &str = r#"
name: peer
extends: builtin:debian-13
architectures: [x86_64]
packages: [apache2, cowsay, molly-guard]
motd:
  40-cow: |
    #!/bin/sh
    /usr/games/cowsay Hello
web:
  root: /var/www/html
  index.html: <h1>Hello</h1>
services: {enable: [apache2]}
volumes:
  - {device: /dev/xvda, root: true, size: 4GiB, type: gp3}
"#;
