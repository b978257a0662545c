//! File systems as they come out, judged by others: e2fsprogs' checker and debugger, and the reader `ext4-view`.

mod attributes;
mod big;
mod images;
mod layout;
mod parents;
mod random;
mod refusals;
mod volumes;
