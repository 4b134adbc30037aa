//! Finds a station's announcer: the addresses of its name, and a connection to the first that answers.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpStream, lookup_host};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// How long to wait for a name server if an address is known already.
const LOOKUP_PATIENCE: Duration = Duration::from_millis(500);
/// How long an address is tried alone before the next one is tried as well (RFC 8305, "Connection Attempt Delay").
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);
/// The most addresses that one dial tries. The last attempt begins after 1.75 s, which with [`LOOKUP_PATIENCE`] leaves it more
/// than a second of [`super::redial::DIAL_DEADLINE`]; the next dial continues with the other addresses.
const MAX_ATTEMPTS: usize = 8;

/// The announcer's addresses. They are remembered, so that an unreachable or slow name server does not keep a station from an
/// announcer that is there.
#[derive(Debug)]
pub struct Directory {
    host: String,
    port: u16,
    /// In the order in which to try them.
    known: Vec<SocketAddr>,
    /// The address of the last connection.
    connected: Option<SocketAddr>,
}

impl Directory {
    /// Looks up the announcer's addresses.
    ///
    /// # Errors
    /// The system's error for a name that it cannot look up.
    pub async fn find(host: &str, port: u16) -> io::Result<Self> {
        let found = lookup_host((host, port)).await?.collect();
        Ok(Self { host: host.to_owned(), port, known: interleaved(found), connected: None })
    }

    /// Connects to the first address that answers, and gives the others up. Dropping the future gives all of them up.
    ///
    /// # Errors
    /// The error of the first address that failed.
    pub async fn connect(&mut self) -> io::Result<TcpStream> {
        let lookup = async {
            let found = lookup_host((self.host.as_str(), self.port)).await?;
            Ok::<_, io::Error>(found.collect::<Vec<_>>())
        };
        if let Ok(Ok(found)) = timeout(LOOKUP_PATIENCE, lookup).await {
            self.update(found);
        }
        let attempts = self.known.len().min(MAX_ATTEMPTS);
        let addresses = self.known[..attempts].to_vec();
        // Unless one of them answers, the next dial begins with the other addresses.
        self.known.rotate_left(attempts);
        let stream = first_to_answer(&addresses).await?;
        self.connected = stream.peer_addr().ok();
        self.move_connected(true);
        Ok(stream)
    }

    /// Records whether the announcer was at the address of the last connection. If so, that address is tried first from now on,
    /// otherwise last.
    pub fn learn(&mut self, is_announcer: bool) {
        self.move_connected(is_announcer);
    }

    fn move_connected(&mut self, to_front: bool) {
        let Some(at) = self.known.iter().position(|address| Some(*address) == self.connected) else { return };
        let address = self.known.remove(at);
        self.known.insert(if to_front { 0 } else { self.known.len() }, address);
    }

    /// Takes in a name server's answer. Addresses that were known already keep their order and go first.
    fn update(&mut self, found: Vec<SocketAddr>) {
        if found.is_empty() {
            return;
        }
        self.known.retain(|address| found.contains(address));
        let new = found.into_iter().filter(|address| !self.known.contains(address)).collect();
        self.known.extend(interleaved(new));
    }
}

/// Returns the addresses in the system's order, but with IPv6 and IPv4 alternating as long as there are both (RFC 8305, section
/// 4).
fn interleaved(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let first_is_ipv6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (first, second): (Vec<_>, Vec<_>) =
        addresses.into_iter().partition(|address| address.is_ipv6() == first_is_ipv6);
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    let mut mixed = Vec::with_capacity(first.len() + second.len());
    while first.len() + second.len() > 0 {
        mixed.extend(first.next());
        mixed.extend(second.next());
    }
    mixed
}

/// Dials one address after another, starting the next as soon as one fails or [`ATTEMPT_DELAY`] has passed.
async fn first_to_answer(addresses: &[SocketAddr]) -> io::Result<TcpStream> {
    let mut attempts = JoinSet::new();
    let mut waiting = addresses.iter().copied();
    let mut failure = None;
    loop {
        if let Some(address) = waiting.next() {
            attempts.spawn(TcpStream::connect(address));
        }
        let patience = if waiting.len() > 0 { ATTEMPT_DELAY } else { Duration::MAX };
        match timeout(patience, attempts.join_next()).await {
            Ok(Some(Ok(Ok(stream)))) => return Ok(stream),
            Ok(Some(Ok(Err(error)))) => failure = failure.or(Some(error)),
            Ok(Some(Err(_cancelled))) => (),
            Ok(None) => return Err(failure.unwrap_or_else(|| io::ErrorKind::AddrNotAvailable.into())),
            Err(_) => (),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use socket2::{Domain, Socket, Type};
    use tokio::net::TcpListener;
    use tokio::time::Instant;

    use super::*;

    /// A listener whose queue is full, so that the system drops every further SYN, and the connection that fills it.
    struct Swallower {
        _listener: Socket,
        _waiting: std::net::TcpStream,
        address: SocketAddr,
    }

    impl Swallower {
        fn open() -> Self {
            let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            listener.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
            listener.listen(0).unwrap();
            let address = listener.local_addr().unwrap().as_socket().unwrap();
            let waiting = std::net::TcpStream::connect(address).unwrap();
            Self { _listener: listener, _waiting: waiting, address }
        }
    }

    fn directory(known: Vec<SocketAddr>) -> Directory {
        Directory { host: "no-such-host.invalid".into(), port: 1, known, connected: None }
    }

    async fn listener() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    #[tokio::test]
    async fn an_address_outlives_its_name_server() {
        let (_listener, address) = listener().await;
        directory(vec![address]).connect().await.unwrap();
    }

    #[tokio::test]
    async fn a_name_that_nobody_knows_is_an_error_at_the_start() {
        assert!(Directory::find("no-such-host.invalid", 1).await.is_err());
    }

    /// The first two are silent, the third refuses, the fourth answers, and is tried first from then on.
    #[tokio::test]
    async fn addresses_that_are_silent_or_refuse_keep_nobody_from_one_that_answers() {
        let silent = [Swallower::open(), Swallower::open()];
        let (listener, answers) = listener().await;
        let refuses = {
            let closed = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
            closed.local_addr().unwrap()
        };
        let mut directory = directory(vec![silent[0].address, silent[1].address, refuses, answers]);
        let stream = directory.connect().await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), answers);
        assert_eq!(directory.known[0], answers);
        directory.learn(true);
        // An address that answers while it is tried alone gets the only connection.
        drop(listener.accept().await.unwrap());
        assert_eq!(directory.connect().await.unwrap().peer_addr().unwrap(), answers);
        assert_eq!(directory.known.len(), 4);
    }

    #[tokio::test]
    async fn where_there_is_no_announcer_another_address_goes_first_the_next_time() {
        let ((_one, other), (_two, announcer)) = (listener().await, listener().await);
        let mut directory = directory(vec![other, announcer]);
        for (address, is_announcer) in [(other, false), (announcer, true), (announcer, true)] {
            assert_eq!(directory.connect().await.unwrap().peer_addr().unwrap(), address);
            directory.learn(is_announcer);
        }
    }

    #[tokio::test]
    async fn a_dial_that_fails_tells_why_and_the_next_goes_on_with_the_other_addresses() {
        let silent: Vec<_> = (0..=MAX_ATTEMPTS).map(|_| Swallower::open()).collect();
        let mut directory = directory(silent.iter().map(|it| it.address).collect());
        let begun = Instant::now();
        let given_up = timeout(super::super::redial::DIAL_DEADLINE, directory.connect()).await;
        assert!(given_up.is_err(), "{:?}", begun.elapsed());
        assert_eq!(directory.known[0], silent[MAX_ATTEMPTS].address);
        directory.known = Vec::new();
        assert_eq!(directory.connect().await.unwrap_err().kind(), io::ErrorKind::AddrNotAvailable);
    }

    #[test]
    fn families_take_turns_and_what_is_known_keeps_its_order() {
        let v4 = |last| SocketAddr::from((Ipv4Addr::new(192, 0, 2, last), 1));
        let v6 = |last| SocketAddr::from((Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last), 1));
        assert_eq!(interleaved(vec![v6(1), v6(2), v6(3), v4(1)]), [v6(1), v4(1), v6(2), v6(3)]);
        assert_eq!(interleaved(vec![v4(1), v4(2), v6(1)]), [v4(1), v6(1), v4(2)]);
        let mut directory = directory(vec![v4(2), v6(1), v4(1)]);
        directory.update(vec![v6(1), v6(3), v4(2)]);
        assert_eq!(directory.known, [v4(2), v6(1), v6(3)]);
        directory.update(Vec::new());
        assert_eq!(directory.known.len(), 3);
    }
}
