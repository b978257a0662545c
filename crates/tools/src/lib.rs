//! Programs that the house runs but does not contain: QEMU, firmware, checkers; from the host or from a private tree.
