//! A server on a VLAN interface of its own, such as `lan.20`. Not every kernel that tests run on has VLANs, so this one is an image's,
//! in QEMU: the server is in one network namespace there, and foreign clients are beside it.

use crate::boot::{BOOT, QUICK, can_boot};
use anyhow::{Context, Result, ensure};
use lab::{Guest, Lan, Need, Pc, PcSlots, bootlace_binary, require};
use std::path::Path;

/// Whoever asks for an address tells what he got here.
const CLIENT: &str = "#!/bin/sh
[ $1 = bound ] || exit 0
/usr/sbin/ip address replace $ip/$mask dev $interface
echo \"$ip $siaddr $boot_file\" >/told
";

const CONFIG: &str = r#"[[network]]
interface = "lan.20"
mode = "dhcp"
pool = "10.20.0.100-10.20.0.199"

[[network]]
interface = "lan.30"
pool = "10.30.0.100-10.30.0.199"

[web]
listen = "127.0.0.1:8080"
"#;

/// Each line that it says begins with `test:`.
const SCRIPT: &str = r#"
fail() { echo "test: failed: $*"; tail -n 40 /up.log /share.log; sync; poweroff -f; sleep 60; }
# busybox has one of that name that knows less, and takes it first.
ip() { /usr/sbin/ip "$@"; }
srv() { ip netns exec srv "$@"; }
vlan() {
    srv ip link add link lan name lan.$1 type vlan id $1
    srv ip address add 10.$1.0.1/24 dev lan.$1
    srv ip link set lan.$1 up
}
asks() {
    rm -f /told
    udhcpc -f -n -q -t $2 -T 1 -i $1 -V PXEClient:Arch:00007:UNDI:003016 -x 0x5d:0007 -s /client >/dev/null 2>&1
    [ -s /told ]
}
boots() {
    read ip siaddr file </told
    rm -f /loader
    tftp -g -r $file -l /loader $siaddr || fail "no loader $file from $siaddr"
    grep -q "(tftp,$siaddr)" /loader || fail "the loader is another server's"
    wget -q -O /config http://$siaddr/grub/grub.cfg || fail "no configuration from $siaddr"
    grep -q $siaddr /config || fail "the configuration is another server's"
    echo "test: $1: $ip from $siaddr, $file"
}
reads() {
    n=0
    until [ -b /dev/etherd/e1.0 ]; do
        n=$((n + 1)); [ $n -lt 60 ] || fail "no AoE disk"
        echo >/dev/etherd/discover; sleep 0.5
    done
    echo 3 >/proc/sys/vm/drop_caches
    cmp /disk /dev/etherd/e1.0 || fail "the AoE disk holds something else"
    echo "test: $1: the disk over AoE is right"
}
mkdir -p /run/netns /var/run
ln -s /run/netns /var/run/netns
ip link set lo up
ip netns add srv || fail "no network namespaces"
ip link add pc0 type veth peer name lan netns srv || fail "no veth"
ip link set pc0 up
srv ip link set lo up
srv ip link set lan up
vlan 20 || fail "no VLANs"
ip link add link pc0 name pc.20 type vlan id 20
ip link add link pc0 name pc.30 type vlan id 30
ip link set pc.30 address 52:54:00:00:30:01
ip link set pc.20 up
ip link set pc.30 up

srv bootlace -v --root /site up >/up.log 2>&1 &
servers=$!
sleep 1
until grep -q "boot server ready" /up.log; do
    [ -d /proc/$servers ] || fail "the servers do not start"
    sleep 0.5
done
asks pc.20 10 || fail "no address in the VLAN"
boots "in the VLAN"
read first rest </told
asks pc0 2 && fail "an address without a tag"
asks pc.30 2 && fail "an address in a VLAN that is not there yet"
echo "test: nobody else is served"
vlan 30
asks pc.30 60 || fail "no address in the VLAN that came late"
boots "in the late VLAN"

dd if=/dev/urandom of=/disk bs=1024 count=1024 2>/dev/null
srv bootlace share /disk --readonly --aoe lan.20:1.0 >/share.log 2>&1 &
insmod /modules/aoe.ko aoe_iflist=pc.20 || fail "no AoE driver"
reads "in the VLAN"

srv ip link delete lan.20
sleep 2
vlan 20
asks pc.20 60 || fail "no address after it was made anew"
read again rest </told
[ "$again" = "$first" ] || fail "another address, $again and not $first"
boots "made anew"
reads "made anew"
grep -q panicked /up.log /share.log && fail "a panic"
echo "test: done"
"#;

#[test]
fn a_server_on_vlan_interfaces_boots_pcs_and_serves_aoe_also_when_they_come_late_or_again() {
    let name = "vlan-server";
    let needs = ["grub-mkimage", "busybox", "debugfs", "strip", "ip"].map(Need::Program);
    if can_boot(name) && require(name, &needs) {
        serves(name).unwrap_or_else(|error| panic!("{error:#}"));
    }
}

fn serves(name: &str) -> Result<()> {
    let _slot = PcSlots::take(1)?;
    let image = QUICK.image(|text| eprintln!("{text}"))?;
    let mut guest = Guest::new(&image)?;
    let binary = bootlace_binary()?;
    guest.program(&binary, "/usr/bin/bootlace")?;
    // An initrd is not built, and is looked for all the same.
    guest.program(&binary.with_file_name("bootlace-init"), "/usr/bin/bootlace-init")?;
    guest.program(Path::new("/usr/bin/grub-mkimage"), "/usr/bin/grub-mkimage")?;
    let ip = ["/usr/sbin/ip", "/usr/bin/ip"].into_iter().find(|ip| Path::new(ip).exists());
    guest.program(Path::new(ip.context("no ip")?), "/usr/sbin/ip")?;
    for folder in ["/usr/lib/grub/i386-pc", "/usr/lib/grub/x86_64-efi"] {
        guest.folder(folder)?;
    }
    for (module, is_loaded) in
        [("drivers/net/veth", true), ("net/8021q/8021q", true), ("drivers/block/aoe/aoe", false)]
    {
        guest.module(module, is_loaded)?;
    }
    guest.file("/client", CLIENT)?;
    guest.file("/site/etc/bootlace/bootlace.toml", CONFIG)?;
    guest.file("/etc/passwd", "root:x:0:0::/:/bin/sh\n")?;
    guest.file("/etc/group", "root:x:0:\n")?;
    let kernel = guest.with_script(SCRIPT)?;
    let lan = Lan::lay(name)?;
    let pc = Pc::builder("server").kernel(&kernel).memory_mib(1536).cpus(2).start(&lan)?;
    let console = pc.console();
    let ended = console.wait_for_any(&["test: done", "test: failed"], BOOT)?;
    let said = console.text();
    ensure!(ended == 0, "{said}");
    for wanted in [
        "test: in the VLAN: 10.20.0.1",
        "test: nobody else is served",
        "test: in the late VLAN: 10.30.0.1",
        "test: in the VLAN: the disk over AoE is right",
        "test: made anew: 10.20.0.1",
        "test: made anew: the disk over AoE is right",
    ] {
        ensure!(said.contains(wanted), "{wanted:?} is not in:\n{said}");
    }
    Ok(())
}
