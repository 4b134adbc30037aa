//! Strangers learn nothing: whatever fails after the preface, the connection closes without a byte.

use bullhorn::handshake::{Contact, Initiator, MESSAGE2_BYTES};
use bullhorn::keys::NoiseKeys;
use bullhorn::wire::{Mode, Preface, Status};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::attacks::building::{Building, Disk};
use crate::peer::PATIENCE;

async fn rest(stream: &mut TcpStream) -> usize {
    let mut answer = Vec::new();
    // A reset counts as an end too.
    let _ = timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("it is left in doubt");
    answer.len()
}

/// Reads an announcer's preface in answer to ours.
async fn open(building: &Building) -> TcpStream {
    let mut stream = TcpStream::connect(building.office.address).await.unwrap();
    stream.write_all(&Preface::of_station(Mode::Secured).encode()).await.unwrap();
    let mut preface = [0; 12];
    stream.read_exact(&mut preface).await.unwrap();
    assert_eq!(preface, Preface::of_announcer(Mode::Secured, Status::Ready).encode());
    stream
}

#[tokio::test(flavor = "multi_thread")]
async fn every_failure_looks_alike() {
    let mut building = Building::open().await;
    let disk = Disk::new();
    let mut hall = building.hall(&disk, "hall-1").await;
    let (keys, invite) = (NoiseKeys::generate().unwrap(), building.invite());
    let announcer = building.keys().noise().public();
    // Message 1: cut short, noise, another magic, another version, another mode.
    let (_, good) = Initiator::start(&keys, Contact::Invite(&invite), "it").unwrap();
    let mut bad = vec![vec![], good[..65].to_vec(), vec![0x5a; 66], vec![0; 66]];
    for at in [0, 8, 9, 50] {
        let mut other = good.to_vec();
        other[at] ^= 0x44;
        bad.push(other);
    }
    for message1 in bad {
        let mut stream = open(&building).await;
        stream.write_all(&message1).await.unwrap();
        stream.shutdown().await.unwrap();
        assert_eq!(rest(&mut stream).await, 0, "{message1:02x?}");
    }
    // Message 3: cut short, noise, from a key that nobody knows.
    for contact in [Contact::Invite(&invite), Contact::Pinned(announcer)] {
        for case in 0..3 {
            let (initiator, message1) = Initiator::start(&keys, contact, "it").unwrap();
            let mut stream = open(&building).await;
            stream.write_all(&message1).await.unwrap();
            let mut message2 = [0; MESSAGE2_BYTES];
            stream.read_exact(&mut message2).await.unwrap();
            let (mut message3, _) = initiator.answer(&message2).unwrap();
            let length = if case == 0 { 63 } else { 64 };
            if case == 1 || matches!(contact, Contact::Invite(_)) {
                message3[20] ^= 1;
            }
            stream.write_all(&message3[..length]).await.unwrap();
            stream.shutdown().await.unwrap();
            assert_eq!(rest(&mut stream).await, 0, "case {case} with {contact:?}");
        }
    }
    // Something that is not a frame, after a complete handshake.
    for frame in [&[9, 0, 1, 0][..], &[1, 0, 1, 7], &[2, 0, 1, 7], &[1, 0xff, 0xff]] {
        let (initiator, message1) = Initiator::start(&keys, Contact::Invite(&invite), "it").unwrap();
        let mut stream = open(&building).await;
        stream.write_all(&message1).await.unwrap();
        let mut message2 = [0; MESSAGE2_BYTES];
        stream.read_exact(&mut message2).await.unwrap();
        let (message3, _) = initiator.answer(&message2).unwrap();
        stream.write_all(&message3).await.unwrap();
        stream.write_all(frame).await.unwrap();
        assert_eq!(rest(&mut stream).await, 0, "{frame:02x?}");
    }
    assert_eq!(building.site.stations().len(), 1);
    building.page(&mut [&mut hall]).await;
    hall.close().await;
    building.office.close().await;
}
