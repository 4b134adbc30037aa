//! A real site in this process, and the disks of its stations.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bullhorn::event::Event;
use bullhorn::handshake::Contact;
use bullhorn::invite::Invite;
use bullhorn::keys::{AnnouncerKeys, StateFolder, StationKeys};
use bullhorn::link::{self, LinkError, StationLink};
use bullhorn::membership::Membership;
use bullhorn::site::Site;
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::peer::{Hall, Office, PATIENCE, clip_of};

/// Three blocks, 0.4 s.
pub const RATE_HZ: u32 = 48_000;
pub const FRAMES: u32 = 20_000;

/// An announcer with a site, and its state folder.
pub struct Building {
    pub office: Office,
    pub site: Arc<Site>,
    pub folder: StateFolder,
    _home: TempDir,
}

impl Building {
    pub async fn open() -> Self {
        Self::open_where(false).await
    }

    /// With `hears`, stations may talk back.
    pub async fn open_where(hears: bool) -> Self {
        let home = tempfile::tempdir().unwrap();
        let folder = StateFolder::open(Some(&home.path().join("state"))).unwrap();
        let site = Arc::new(Site::open(&folder).unwrap());
        let minute = Duration::from_secs(60);
        let page = clip_of(FRAMES);
        let office = Office::open_on("127.0.0.1:0", Some(site.clone()), RATE_HZ, &page, minute, hears).await;
        Self { office, site, folder, _home: home }
    }

    /// Starts a later run of the announcer, at the same address and with the same keys.
    pub async fn restart(&mut self) {
        let (address, page) = (self.office.address.to_string(), clip_of(FRAMES));
        let Self { office, site, folder, _home } = std::mem::replace(self, Self::open_where(true).await);
        office.close().await;
        // The folder belongs to the old run until the last of that run is gone.
        let site = {
            drop(site);
            let started = std::time::Instant::now();
            loop {
                match Site::open(&folder) {
                    Ok(site) => break Arc::new(site),
                    Err(error) => assert!(started.elapsed() < PATIENCE, "{error}"),
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let minute = Duration::from_secs(60);
        let office = Office::open_on(&address, Some(site.clone()), RATE_HZ, &page, minute, true).await;
        std::mem::replace(self, Self { office, site, folder, _home }).office.close().await;
    }

    pub fn keys(&self) -> AnnouncerKeys {
        AnnouncerKeys::load(&self.folder).unwrap().unwrap()
    }

    pub fn invite(&self) -> Invite {
        self.site.invite().unwrap()
    }

    /// Opens a station, and waits until it has joined.
    pub async fn hall(&mut self, disk: &Disk, name: &str) -> Hall {
        let hall = disk.hall(self.office.address, name, Some(self.invite()));
        self.office.joined(name).await;
        hall
    }

    /// Announces, and checks that each of these stations plays the page whole and once, and that no other is expected to.
    pub async fn page(&mut self, halls: &mut [&mut Hall]) {
        for hall in halls.iter_mut() {
            hall.log.mark();
        }
        self.office.announce().await;
        assert_eq!(self.office.verdict().await, (halls.len(), halls.len(), vec![]));
        for hall in halls {
            hall.played().await;
            assert_eq!(hall.log.count(|event| matches!(event, Event::Played { .. })), 1);
            hall.heard_only(&self.office.wav);
        }
    }
}

impl Hall {
    /// Checks that it never played anything other than this.
    pub fn heard_only(&self, wav: &[u8]) {
        for file in self.files() {
            assert!(std::fs::read(&file).unwrap() == wav, "{} is something else", file.display());
        }
    }

    /// Waits until its announcer has welcomed it after an outage.
    pub async fn connected(&mut self) {
        let connected = |event: &Event| matches!(event, Event::Connected { .. }).then_some(());
        self.log.until("the station to be welcomed", connected).await;
    }

    /// Waits until it reports that it is waiting, and returns the reason.
    pub async fn waits(&mut self) -> String {
        let waits = |event: &Event| match event {
            Event::Waiting { reason, .. } => Some(reason.clone()),
            _ => None,
        };
        self.log.until("the station to wait", waits).await
    }
}

/// A station's disk.
pub struct Disk {
    pub folder: StateFolder,
    _home: TempDir,
}

impl Disk {
    pub fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let folder = StateFolder::open(Some(&home.path().join("state"))).unwrap();
        Self { folder, _home: home }
    }

    pub fn member(
        &self,
        address: SocketAddr,
        name: &str,
        zones: &[String],
        invite: Option<Invite>,
    ) -> Membership {
        let host = address.ip().to_string();
        Membership::open(&self.folder, (&host, address.port()), name, zones, invite).unwrap()
    }

    /// Opens a real station that runs on this disk.
    pub fn hall(&self, address: SocketAddr, name: &str, invite: Option<Invite>) -> Hall {
        Hall::open_as(address, name, vec![], Some(self.member(address, name, &[], invite)))
    }

    /// The keys that a thief reads from it.
    pub fn keys(&self, name: &str) -> StationKeys {
        StationKeys::load_or_create(&self.folder.within(name).unwrap()).unwrap()
    }
}

/// Dials as a thief's program would.
pub async fn dial(
    address: SocketAddr,
    keys: &StationKeys,
    contact: Contact<'_>,
) -> Result<StationLink<TcpStream>, LinkError> {
    let stream = timeout(PATIENCE, TcpStream::connect(address)).await.unwrap()?;
    let (link, _) = link::dial(stream, Some((keys.noise(), contact, "the site"))).await?;
    Ok(link)
}
