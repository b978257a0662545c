//! Linux namespaces: a root file system in which programs run without network, host files or identity.
