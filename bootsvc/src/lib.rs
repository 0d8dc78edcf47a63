//! The binary `bootlace`: command line, configuration, sockets and tasks of the boot server.

mod alerts;
mod backup;
mod boot;
mod boot_socket;
mod bucket;
mod check;
pub mod cli;
mod config;
mod doctor;
mod log;
pub mod net;
mod network;
mod new_file;
mod orders;
mod pages;
mod paths;
mod privileges;
mod programs;
mod report;
mod scratch;
mod serve;
mod setup;
mod site;
mod state_lock;
mod systemd;
mod up;
mod web_tls;
