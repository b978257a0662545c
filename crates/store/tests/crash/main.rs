//! The store never loses a committed snapshot: programs use it on a simulated machine that stops at every single operation, with
//! errors at every operation, and on a simulated object store. `BAKEHOUSE_THOROUGH=1` looks at many more states and orders.

use std::io::Write as _;

mod bucket;
mod check;
mod disk;
mod errors;
mod flawed;
mod ledger;
mod machine;
mod objects;
mod power;
mod rng;
mod scenarios;
mod teeth;
mod turns;
mod world;

/// Whether time does not matter.
pub(crate) fn thorough() -> bool {
    std::env::var_os("BAKEHOUSE_THOROUGH").is_some_and(|value| value == "1")
}

/// Says something also when the test passes.
pub(crate) fn say(text: &str) {
    // A test whose output nobody reads goes on.
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}
