//! What an ordinary user of a machine that runs can do in its name: his packets have its address and its MAC.

use crate::boot::{BOOT, COMMAND, MAC, can_boot, wait_for_login};
use anyhow::{Result, ensure};
use lab::{Console, Lan, Pc, PcSlots, Recipe, Site};
use std::time::Duration;

/// Asks to boot as the machine's firmware and loader do, again and again, and then for the secrets of that boot. Meanwhile the port at
/// which the machine's keeper is asked whether the machine runs is so full that most questions get lost.
const THIEF: &str = r#"
use Socket; use IO::Socket; $| = 1;
my ($me, $mac, $seconds) = @ARGV; my $server = inet_aton("10.77.0.1");
my @floods; for (1..2) { my $child = fork; if (!$child) {
  socket(my $s, AF_INET, SOCK_DGRAM, 17); my $to = sockaddr_in(4915, inet_aton($_ == 1 ? "127.0.0.1" : $me));
  while (1) { send($s, "x" x 1400, 0, $to) } } push @floods, $child }
sub discover { socket(my $s, AF_INET, SOCK_DGRAM, 17);
  my $p = pack("CCCCNnn", 1, 1, 6, 0, int(rand(1e9)), 0, 0) . inet_aton($me) . ("\0" x 12) . pack("H*", $mac) . ("\0" x 202)
    . pack("H*", "63825363350103") . pack("CC", 60, 9) . "PXEClient" . pack("CCn", 93, 2, 0) . "\xff" . ("\0" x 60);
  send($s, $p, 0, sockaddr_in(67, $server)) }
sub tftp { my ($path) = @_; socket(my $s, AF_INET, SOCK_DGRAM, 17);
  send($s, "\0\1$path\0octet\0", 0, sockaddr_in(69, $server)); my ($got, $bits) = ("", ""); vec($bits, fileno($s), 1) = 1;
  while (select(my $ready = $bits, undef, undef, 3) > 0) { my $from = recv($s, my $b, 2000, 0); $got .= substr($b, 4);
    send($s, "\0\4" . substr($b, 2, 2), 0, $from); last if length($b) < 516 } $got }
sub http { my $s = IO::Socket::INET->new(PeerAddr => "10.77.0.1", PeerPort => 80, Timeout => 2) or return "";
  print $s "GET $_[0] HTTP/1.1\r\nHost: 10.77.0.1\r\nConnection: close\r\n\r\n"; my $got = ""; my $end = time + 9;
  while (time < $end && sysread($s, my $b, 4000)) { $got .= $b } $got }
my ($asked, $told, $secrets) = (0, 0, 0); my $end = time + $seconds;
while (time < $end) { discover(); select(undef, undef, undef, 0.3); $asked++;
  my @boots = tftp("/grub/machine.cfg") =~ /bootlace\.boot=(\d+)/; $told += @boots;
  push @boots, 1 .. 6; for (@boots) { my $got = http("/boot/host/$_"); $secrets++ if $got =~ /^HTTP\S+ 200/ } }
kill 9, @floods; print "asked=$asked told=$told secrets=$secrets.\n";
"#;

#[test]
fn a_user_of_a_machine_gets_no_secret_of_a_boot_in_its_name() {
    check("inside", "nbd");
}

/// What such a machine says is known by its keeper alone: its disk has no connection.
#[test]
fn a_user_of_a_machine_with_an_aoe_root_gets_none_either() {
    check("inside-aoe", "aoe");
}

fn check(name: &str, root: &str) {
    if can_boot(name) {
        steal(name, root).unwrap_or_else(|error| panic!("{error:#}"));
    }
}

fn steal(name: &str, root: &str) -> Result<()> {
    let _slot = PcSlots::take(1)?;
    let image = Recipe::default().image(|text| eprintln!("{text}"))?;
    let site = Site::builder().create(Lan::lay(name)?)?;
    site.run(&["image", "import", &image.to_string_lossy(), "--name", "debian"])?;
    site.run(&["machine", "set", "pc-1", "--mac", MAC, "--image", "debian", "--root-kind", root])?;
    let storage = site.storage()?;
    let mut servers = site.serve()?;
    let pc = Pc::builder("pc-1").mac(MAC).start(site.lan())?;
    wait_for_login(&pc, "pc-1")?;
    site.wait_for_stage("pc-1", "up", BOOT)?;
    site.run(&["machine", "next", "pc-1", "local-disk"])?;
    let console = pc.console();
    console.log_in(COMMAND)?;
    for (n, line) in THIEF.trim().lines().enumerate() {
        let into = if n == 0 { ">" } else { ">>" };
        console.shell(&format!("printf '%s\\n' '{line}' {into} /tmp/thief.pl"), COMMAND)?;
    }
    console.shell("chmod 644 /tmp/thief.pl", COMMAND)?;
    steals_nothing(&site, console, 30)?;

    // A server that has just started has heard nothing of the machine yet.
    for _ in 0..2 {
        servers.kill()?;
        servers = site.serve()?;
        steals_nothing(&site, console, 15)?;
    }
    let view = site.browser().json("/api/v1/machines/pc-1")?;
    ensure!(view["state"]["word"] == "up" && view["is_proven"] == true, "{view:#}");
    ensure!(view["next_boot"] == "local-disk", "what it is to start once is used up: {view:#}");
    let errors = console.shell("dmesg | grep -ci 'i/o error'", COMMAND)?;
    ensure!(errors == "0", "{}", console.shell("dmesg | tail -30", COMMAND)?);
    drop(pc);
    storage.stop()?;
    servers.stop()
}

fn steals_nothing(site: &Site, console: &Console, seconds: u64) -> Result<()> {
    let address = site.browser().json("/api/v1/machines/pc-1")?["address"].clone();
    let address = address.as_str().unwrap_or_default().to_owned();
    let mac = MAC.replace(':', "");
    let command = format!(
        "setpriv --reuid 65534 --regid 65534 --clear-groups perl /tmp/thief.pl {address} {mac} {seconds}"
    );
    let told = console.shell(&command, Duration::from_secs(4 * seconds) + COMMAND)?;
    ensure!(told.contains("secrets=0.") && !told.contains("asked=0 "), "{told}");
    Ok(())
}
