//! The whole path with the real program: recipes are baked, judged by independent checkers, booted, upgraded, broken.
//!
//! The programs come from BAKEHOUSE_TOOLS_PATH, which `cargo xtask test` sets. Cases that share a machine are told one
//! by one all the same. Arguments choose cases by a part of their names.
#![allow(clippy::print_stdout, reason = "a test runner tells its results there")]

mod checkers;
mod data_disk;
mod house;
mod lives;
mod program;
#[path = "../commands/shapes.rs"]
mod shapes;
mod shell;
mod tally;

use std::process::ExitCode;

use house::House;
use tally::Tally;

fn main() -> ExitCode {
    let tally = Tally::new(std::env::args().skip(1));
    let house = House::new();
    // Three lanes, since a boot leaves processors idle now and then: what runs the program, and two long lives.
    std::thread::scope(|scope| {
        scope.spawn(|| {
            tally.test("mistakes_are_told_and_leave_nothing", || program::mistakes(&house));
            tally.test("an_image_is_baked_boots_and_is_checked", || program::bake(&house));
            tally.test("independent_checkers_find_no_fault", || checkers::image(&house));
            tally.test("the_store_has_the_image_and_gives_it_back", || program::in_store(&house));
            tally.test("the_same_lock_gives_the_same_bytes", || program::same_bytes(&house));
            tally.test("what_is_kept_from_bake_to_bake_gives_the_same_bytes", || {
                program::kept_from_bake_to_bake(&house)
            });
            tally.thorough("a_check_that_fails_is_told_and_changes_nothing", || {
                program::failing_check(&house)
            });
            tally.thorough("an_aarch64_machine_grows", || program::grows(&house, "aarch64"));
            tally.test("a_machine_that_cannot_boot_tells_where_it_stopped", || program::no_boot(&house));
            tally.test("a_shell_opens_where_a_script_failed", || shell::failing_step(&house));
            tally.test("a_volume_too_small_is_told_with_the_size", || program::too_small(&house));
        });
        scope.spawn(|| {
            lives::by_secure_boot(&house, &tally);
            lives::with_volumes(&house, &tally);
        });
        lives::by_bios(&house, &tally);
    });
    tally.end()
}
