//! Repositories made for the test: signed by test keys, served from a folder or by a small HTTP server.

mod keys;
mod repository;
mod server;
mod signatures;
mod solving;
