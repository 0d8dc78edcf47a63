//! Tests of the whole: foreign clients in namespaces, QEMU PCs, and rules about the tree.

mod boot;
mod cli;
mod dhcp;
mod failures;
mod foreign;
mod nics;
mod outage;
mod tftp;
mod tidy;
