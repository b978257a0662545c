//! Boots a disk in QEMU and checks it: profiles, firmware, console, metadata service, smoke checks.
