//! Signed Debian repositories, version order, the solver, the download cache, and reading .deb files.
