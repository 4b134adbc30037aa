//! The socket that an announcer listens on, and the advice given if it cannot be opened.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use rustix::io::Errno;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;

/// The most connections that wait to be accepted; the system may allow fewer. After a power cut all stations dial at
/// once.
const QUEUE: i32 = 16_384;

/// Where an announcer listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListenOn {
    /// This port on every network, with IPv6 and IPv4.
    Everywhere(u16),
    /// This address only: `[::]` is IPv6 alone, `0.0.0.0` is IPv4 alone.
    Address(SocketAddr),
}

impl ListenOn {
    fn port(self) -> u16 {
        match self {
            Self::Everywhere(port) => port,
            Self::Address(address) => address.port(),
        }
    }
}

impl fmt::Display for ListenOn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Everywhere(port) => write!(f, "port {port}"),
            Self::Address(address) => address.fmt(f),
        }
    }
}

/// The announcer cannot listen.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {on}: {}", advice(*.on, .source))]
pub struct ListenError {
    on: ListenOn,
    source: io::Error,
}

/// What to do if the system does not let an announcer listen.
fn advice(on: ListenOn, error: &io::Error) -> String {
    let port = on.port();
    match error.kind() {
        io::ErrorKind::AddrInUse => format!(
            "another program has it, perhaps another announcer (`ss -ltnp 'sport = :{port}'` shows which): end that, or \
             choose another port with --listen"
        ),
        io::ErrorKind::AddrNotAvailable => {
            "this computer does not have that address (`ip address` lists those it has): give one of them, or a port \
             alone for all of them"
                .to_owned()
        }
        io::ErrorKind::PermissionDenied => {
            "this user may not use that port: choose one from 1024 on with --listen".to_owned()
        }
        _ if is_without_ipv6(error) => "IPv6 is off on this computer: give an IPv4 address".to_owned(),
        _ => "the system does not allow it".to_owned(),
    }
}

/// Binds a listening socket. If IPv6 is off, [`ListenOn::Everywhere`] means every IPv4 network.
///
/// # Errors
/// [`ListenError`], whose message says what to do.
pub fn listen(on: ListenOn) -> Result<TcpListener, ListenError> {
    listen_with(on, bind).map_err(|source| ListenError { on, source })
}

/// Like [`listen`], but the caller supplies the system's part, `bind`: its arguments are an address, and whether an
/// IPv6 socket also accepts IPv4.
fn listen_with<L>(on: ListenOn, bind: impl Fn(SocketAddr, bool) -> io::Result<L>) -> io::Result<L> {
    match on {
        ListenOn::Address(address) => bind(address, false),
        ListenOn::Everywhere(port) => match bind((Ipv6Addr::UNSPECIFIED, port).into(), true) {
            Err(error) if is_without_ipv6(&error) => bind((Ipv4Addr::UNSPECIFIED, port).into(), false),
            bound => bound,
        },
    }
}

/// Whether an error means that this system, or this service, has no IPv6.
fn is_without_ipv6(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL))
}

fn bind(address: SocketAddr, takes_both: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(!takes_both)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(QUEUE)?;
    TcpListener::from_std(socket.into())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use std::net::IpAddr;

    use tokio::net::TcpStream;

    use super::super::listener::{Listen, TcpDoor};
    use super::*;

    const LOCALHOSTS: [IpAddr; 2] = [IpAddr::V6(Ipv6Addr::LOCALHOST), IpAddr::V4(Ipv4Addr::LOCALHOST)];

    fn has_ipv6() -> bool {
        std::net::TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok()
    }

    #[tokio::test]
    async fn one_port_takes_both_families_and_shows_each_peer_by_its_own_address() {
        let mut door = TcpDoor::new(listen(ListenOn::Everywhere(0)).unwrap());
        let port = door.local_addr().unwrap().port();
        for localhost in LOCALHOSTS.into_iter().filter(|it| it.is_ipv4() || has_ipv6()) {
            let dialled = TcpStream::connect((localhost, port)).await.unwrap();
            let (_, shown) = door.accept().await.unwrap();
            assert_eq!(shown, dialled.local_addr().unwrap());
        }
    }

    #[tokio::test]
    async fn an_address_means_just_that_address() {
        let unspecified: [IpAddr; 2] = [Ipv6Addr::UNSPECIFIED.into(), Ipv4Addr::UNSPECIFIED.into()];
        for (at, address) in unspecified.into_iter().enumerate().filter(|(_, it)| it.is_ipv4() || has_ipv6())
        {
            let listener = listen(ListenOn::Address((address, 0).into())).unwrap();
            let port = listener.local_addr().unwrap().port();
            TcpStream::connect((LOCALHOSTS[at], port)).await.unwrap();
            assert!(TcpStream::connect((LOCALHOSTS[1 - at], port)).await.is_err(), "{address}");
        }
    }

    #[test]
    fn without_ipv6_every_network_is_every_ipv4_network() {
        for errno in [Errno::AFNOSUPPORT, Errno::ADDRNOTAVAIL] {
            let bind =
                |address: SocketAddr, _| if address.is_ipv6() { Err(errno.into()) } else { Ok(address) };
            let bound = listen_with(ListenOn::Everywhere(7), bind).unwrap();
            assert_eq!(bound, (Ipv4Addr::UNSPECIFIED, 7).into());
            assert!(listen_with(ListenOn::Address((Ipv6Addr::LOCALHOST, 7).into()), bind).is_err());
        }
        let taken = |_, _| Err::<(), _>(Errno::ADDRINUSE.into());
        let error = listen_with(ListenOn::Everywhere(7), taken).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }

    #[tokio::test]
    async fn what_cannot_be_had_says_why_and_what_to_do() {
        let listener = listen(ListenOn::Everywhere(0)).unwrap();
        let taken = listener.local_addr().unwrap().port();
        for (on, words) in [
            (ListenOn::Everywhere(taken), "another program has it"),
            (ListenOn::Address((Ipv4Addr::LOCALHOST, taken).into()), "another program has it"),
            (ListenOn::Address((Ipv4Addr::new(192, 0, 2, 1), 0).into()), "does not have that address"),
        ] {
            let error = listen(on).unwrap_err();
            assert!(error.to_string().contains(words), "{error}");
        }
        let denied = ListenError { on: ListenOn::Everywhere(80), source: Errno::ACCESS.into() };
        assert_eq!(
            denied.to_string(),
            "cannot listen on port 80: this user may not use that port: choose one from 1024 on with --listen"
        );
    }
}
