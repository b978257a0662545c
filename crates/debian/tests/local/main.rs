//! Repositories made for the test: signed by test keys, served from a folder or by a small HTTP server.

mod faults;
mod repository;
mod signatures;
mod solving;
