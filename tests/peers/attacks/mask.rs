//! An announcer that the test plays, on the real link, with whatever keys it got hold of.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bullhorn::clip::Format;
use bullhorn::clip_cipher::SealedClip;
use bullhorn::invite::{InviteId, InviteSecret};
use bullhorn::keys::{AnnouncerKeys, NoiseKeys, NoisePublicKey};
use bullhorn::link::{self, AnnouncerLink, Frame, Gate, LinkError};
use bullhorn::seal::{self, TimeNonce, TimeStatement};
use bullhorn::wire::{self, BLOCK_BYTES, ClipHeader, ClipId, FromAnnouncer, FromStation, Nonce, Statement};
use sha2::{Digest, Sha256};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::peer::PATIENCE;

/// An announcer's identity in the handshake. It lets in everybody.
pub struct Mask {
    pub listener: TcpListener,
    pub noise: NoiseKeys,
    pub signer: AnnouncerKeys,
    pub secret: Option<InviteSecret>,
    started: Instant,
}

impl Gate for Mask {
    fn keys(&self) -> &NoiseKeys {
        &self.noise
    }

    fn invite(&self, _: InviteId) -> Option<InviteSecret> {
        self.secret.clone()
    }

    fn knows(&self, _: &NoisePublicKey) -> bool {
        true
    }
}

impl Mask {
    pub async fn of(keys: &AnnouncerKeys) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let started = Instant::now();
        Self { listener, noise: keys.noise().clone(), signer: keys.clone(), secret: None, started }
    }

    pub fn address(&self) -> SocketAddr {
        self.listener.local_addr().unwrap()
    }

    pub async fn accept(&self) -> Result<AnnouncerLink<TcpStream>, LinkError> {
        let (stream, _) = timeout(PATIENCE, self.listener.accept()).await.expect("it does not dial").unwrap();
        stream.set_nodelay(true).unwrap();
        Ok(link::accept(stream, Some(self), || ()).await?.link)
    }

    /// Its clock, by which it answers pings.
    pub fn now_us(&self) -> u64 {
        self.started.elapsed().as_micros() as u64
    }

    pub fn states(&self, nonce: Nonce, unix_ms: u64) -> Statement {
        let statement = TimeStatement::sign(&self.signer, TimeNonce(nonce), unix_ms);
        Statement { unix_ms, signature: statement.signature.to_vec() }
    }

    /// Welcomes the station, and states that the time is `unix_ms`.
    pub async fn greet(&self, unix_ms: u64) -> Talk<'_> {
        let (mut talk, nonce) = loop {
            // A station that was restarted has left a connection behind.
            let Ok(link) = self.accept().await else { continue };
            let mut talk = Talk { mask: self, link };
            if let Some(FromStation::Hello { nonce, .. }) = talk.next().await {
                break (talk, nonce);
            }
        };
        let statement = self.states(nonce.expect("a nonce"), unix_ms);
        talk.say(FromAnnouncer::Welcome { clock: 5, site: Some((*self.signer.id().as_bytes(), statement)) })
            .await;
        talk
    }
}

/// One connection.
pub struct Talk<'a> {
    mask: &'a Mask,
    link: AnnouncerLink<TcpStream>,
}

impl Talk<'_> {
    pub async fn say(&mut self, message: FromAnnouncer) {
        // A station that has hung up is noticed when reading.
        let _ = self.link.1.send(&message).await;
    }

    /// The next message that is not a ping; pings are answered. `None` when the station hangs up.
    pub async fn next(&mut self) -> Option<FromStation> {
        loop {
            let frame = timeout(PATIENCE, self.link.0.next()).await.expect("nothing was heard in time");
            match frame {
                Ok(Some(Frame::Message(FromStation::Ping { t1_us }))) => {
                    let now_us = self.mask.now_us();
                    self.say(FromAnnouncer::Pong { t1_us, t2_us: now_us, t3_us: now_us }).await;
                }
                Ok(Some(Frame::Message(message))) => return Some(message),
                Ok(Some(Frame::Block(_))) => panic!("a station sends no blocks"),
                Ok(None) | Err(_) => return None,
            }
        }
    }

    /// Offers a clip as it is.
    pub async fn offer(&mut self, header: Vec<u8>, signature: Vec<u8>, wav: &[u8]) {
        let sealed = SealedClip::seal(wav, BLOCK_BYTES).unwrap();
        let key = sealed.key().as_bytes().to_vec();
        self.say(FromAnnouncer::Clip { header, signature, key }).await;
        let _ = self.link.1.send_blocks(&wire::block_frames(sealed.blocks())).await;
    }

    /// Signs a header, and offers its clip.
    pub async fn offer_signed(&mut self, header: &ClipHeader, wav: &[u8]) {
        let header = header.encode();
        let signature = seal::sign(&self.mask.signer, &header).to_vec();
        self.offer(header, signature, wav).await;
    }

    /// Returns why the station refuses the clip, and checks that it hangs up after the Noted.
    pub async fn refusal(mut self) -> String {
        match self.next().await {
            Some(FromStation::Rejected { clip, reason }) => {
                self.say(FromAnnouncer::Noted { clip }).await;
                assert_eq!(self.next().await, None);
                reason
            }
            other => panic!("not refused but {other:?}"),
        }
    }

    /// Sends an instant to play at.
    pub async fn play_soon(&mut self, id: ClipId) {
        let instant_us = (self.mask.started.elapsed() + Duration::from_millis(100)).as_micros() as u64;
        self.say(FromAnnouncer::PlayAt { clip: id, instant_us }).await;
    }

    /// Checks that the station plays the offered clip.
    pub async fn plays(mut self, id: ClipId) {
        let heard = self.next().await;
        assert!(matches!(&heard, Some(FromStation::Verified { clip, .. }) if *clip == id), "{heard:?}");
        self.play_soon(id).await;
        assert_eq!(self.next().await, Some(FromStation::Playing { clip: id }));
        let heard = self.next().await;
        assert!(matches!(&heard, Some(FromStation::Played(receipt)) if receipt.clip == id), "{heard:?}");
        self.say(FromAnnouncer::Noted { clip: id }).await;
        assert_eq!(self.next().await, None);
    }
}

/// A truthful header of this WAV, valid for a minute from `created_unix_ms`.
pub fn header_of((epoch, sequence): (u64, u64), created_unix_ms: u64, wav: &[u8]) -> ClipHeader {
    ClipHeader {
        id: ClipId { epoch, sequence },
        created_unix_ms,
        expires_unix_ms: created_unix_ms + 60_000,
        format: Format { wav_bytes: wav.len() as u32, rate_hz: 8_000 },
        sha256: Sha256::digest(wav).into(),
        priority: Default::default(),
        zones: vec![],
    }
}
