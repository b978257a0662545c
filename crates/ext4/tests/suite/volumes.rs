//! Volumes of all sizes, their features, and what they grow to.

use block::{GIB, KIB, MIB};
use ext4::Options;
use tree::{Entry, Tree};

use crate::images::{Image, compare, options, run, simple};

fn empty() -> Tree {
    Tree::new(Entry::directory(0o755))
}

#[test]
fn empty_volumes_of_all_sizes_are_clean() {
    // The odd ones have last groups that are short: kept, kept just so, and left out.
    let sizes = [
        8 * MIB, 9 * MIB + 4 * KIB, 64 * MIB, 128 * MIB + 4 * MIB, 128 * MIB + 12 * KIB, 200 * MIB, GIB, 4 * GIB,
        4 * GIB + 3 * MIB, 10 * GIB + 100 * MIB, 40 * GIB, 1024 * GIB,
    ];
    for size in sizes {
        let map = simple(&empty(), &options(size));
        Image::new(&map).check();
        compare(&map, &empty());
    }
}
