//! The recipe language: YAML with extends, variables, a JSON Schema, diagnostics with line and column, and the lock file.
