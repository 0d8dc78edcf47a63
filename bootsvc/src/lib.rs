//! The binary `bootlace`: command line, configuration, sockets and tasks of the boot server.

mod addresses;
mod boot_files;
mod catalogue;
mod check;
pub mod cli;
mod config;
mod http;
mod loader;
pub mod net;
mod network;
mod paths;
mod report;
mod serve;
mod up;
