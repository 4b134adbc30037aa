//! A name with several addresses, and a listener for both families.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::process::Command;

use crate::support::hallway::{BULLHORN, Program, file};
use crate::support::wav::Spec;
use socket2::{Domain, Socket, Type};

/// One of the addresses drops every SYN, as behind a firewall. The system's order decides which is dialled first, so
/// each of them is the silent one once.
#[test]
fn an_address_that_is_silent_keeps_nobody_from_the_other() {
    let folder = tempfile::tempdir().unwrap();
    let wav = Spec::mono(16, 8_000).write(folder.path(), 800);
    let addresses = [Ipv4Addr::new(127, 0, 0, 1), Ipv4Addr::new(127, 0, 0, 2)];
    let hosts = folder.path().join("hosts");
    std::fs::write(&hosts, addresses.map(|it| format!("{it} two-homes\n")).concat()).unwrap();
    for (silent, answers) in [(addresses[0], addresses[1]), (addresses[1], addresses[0])] {
        // Its queue is full, so the system drops new connections.
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        listener.bind(&SocketAddr::from((silent, 0)).into()).unwrap();
        listener.listen(0).unwrap();
        let silent = listener.local_addr().unwrap().as_socket().unwrap();
        let _waiting = TcpStream::connect(silent).unwrap();
        let listen = format!("{answers}:{}", silent.port());
        let arguments = ["announce", "--open", "--listen", &listen, "--file", wav.to_str().unwrap()];
        let mut announcer = Program::start("announcer", arguments, &[]);
        announcer.wait_for("listening");
        // A hosts file of its own: a mount that nobody else sees.
        let mut station = Command::new("unshare");
        station.args([
            "--map-root-user",
            "--mount",
            "sh",
            "-c",
            "mount --bind \"$0\" /etc/hosts && exec \"$@\"",
        ]);
        station.arg(&hosts).args([BULLHORN, "speaker", "--open", "--name", "hall-1", "--events", "json"]);
        station.arg(format!("two-homes:{}", silent.port()));
        station.arg("--output").arg(file(&folder.path().join(answers.to_string())));
        let mut station = Program::start_command("hall-1", station, &[]);
        station.wait_for("connected");
        announcer.wait_for("station-joined");
        announcer.enter();
        assert_eq!(announcer.wait_for("done")["played"], 1);
    }
}

/// By default an announcer listens on IPv6 and IPv4, and shows each station by its own address.
#[test]
fn stations_of_both_families_reach_an_announcer() {
    let folder = tempfile::tempdir().unwrap();
    let wav = Spec::mono(16, 8_000).write(folder.path(), 800);
    let arguments = ["announce", "--open", "--listen", "0", "--file", wav.to_str().unwrap()];
    let mut announcer = Program::start("announcer", arguments, &[]);
    let address = announcer.wait_for("listening")["address"].as_str().unwrap().to_owned();
    let has_ipv6 = std::net::TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok();
    let port = address.rsplit(':').next().unwrap();
    let mut stations = vec![("127.0.0.1", "127.0.0.1:")];
    if has_ipv6 {
        assert!(address.starts_with("[::]:"), "{address}");
        stations.push(("[::1]", "[::1]:"));
    }
    let mut running = Vec::new();
    for (host, shown) in stations {
        let output = file(&folder.path().join(format!("played-{}", running.len())));
        let name = format!("hall-{}", running.len());
        let target = format!("{host}:{port}");
        let mut arguments: Vec<std::ffi::OsString> =
            ["speaker", &target, "--open", "--name", &name, "--output"].map(Into::into).into();
        arguments.push(output);
        running.push(Program::start(&name, arguments, &[]));
        let joined = announcer.wait_for("station-joined");
        assert!(joined["address"].as_str().unwrap().starts_with(shown), "{joined}");
    }
}
