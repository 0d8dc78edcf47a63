//! Tests of the whole: foreign clients in namespaces, QEMU PCs, and rules about the tree.

mod book;
mod boot;
mod cli;
mod dhcp;
mod failures;
mod file_systems;
mod foreign;
mod handover;
mod killed;
mod mtu;
mod nbd_clients;
mod nbd_tls;
mod nbd_tls_root;
mod nics;
mod outage;
mod own_dhcp;
mod own_user;
mod partitions;
mod ram;
mod rescue;
mod sanboot;
mod segment;
mod tftp;
mod tidy;
mod two_addresses;
mod vlan;
