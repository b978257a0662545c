//! The language from the outside: files in, recipes or messages out.

use std::fs;
use std::path::Path;

use recipe::{Arch, LoadOptions, Recipe, load};

const RECIPES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../recipes");

fn recipe(folder: &Path, text: &str, arch: Arch) -> Recipe {
    let path = folder.join("recipe.yaml");
    fs::write(&path, text).unwrap();
    let source = load(&path, &LoadOptions::default()).unwrap_or_else(|problems| panic!("{problems}"));
    source.for_arch(arch).unwrap()
}

#[test]
fn the_example_that_people_copy_says_what_it_should() {
    let path = Path::new(RECIPES).join("hello-web.yaml");
    let source = load(&path, &LoadOptions::default()).unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(source.warnings(), []);
    assert_eq!(source.architectures(), [Arch::X86_64, Arch::Aarch64]);
    assert_eq!(source.lock_path(), Path::new(RECIPES).join("hello-web.lock"));
    let recipe = source.for_arch(Arch::X86_64).unwrap();
    println!("{}", serde_json::to_string_pretty(&recipe).unwrap());
    assert_eq!(recipe.image_name, "hello-web-1.0.0");
}
#[test]
fn a_recipe_needs_no_base() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = recipe(folder.path(), "name: tiny\n", Arch::Aarch64);
    assert_eq!(recipe.kernel_package(), "linux-image-cloud-arm64");
    assert!(recipe.packages.is_empty() && recipe.users.is_empty());
}
