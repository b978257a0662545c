//! Lays down packages and what the recipe adds, runs maintainer scripts in the sandbox, and reads the result as a Tree.
