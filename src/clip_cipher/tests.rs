#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::*;

fn wav(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|index| (index * 31 % 251) as u8).collect()
}

fn open(sealed: &SealedClip) -> Vec<u8> {
    let opener = ClipOpener::new(sealed.key()).unwrap();
    let blocks = sealed.blocks().enumerate();
    blocks
        .flat_map(|(index, block)| opener.open_block(index as u32, &mut block.to_vec()).unwrap().to_vec())
        .collect()
}

#[test]
fn every_length_comes_back() {
    for bytes in [0, 1, 15, 16, 17, 99, 100, 101, 200, 1001] {
        let sealed = SealedClip::seal(&wav(bytes), 100).unwrap();
        assert_eq!(sealed.sealed().len(), sealed_bytes(bytes, 100));
        assert_eq!(sealed.blocks().count(), bytes.div_ceil(100));
        assert_eq!(open(&sealed), wav(bytes));
    }
}

#[test]
fn blocks_cannot_be_altered_swapped_repeated_or_cut() {
    let sealed = SealedClip::seal(&wav(300), 100).unwrap();
    let other = SealedClip::seal(&wav(300), 100).unwrap();
    let opener = ClipOpener::new(sealed.key()).unwrap();
    let blocks: Vec<_> = sealed.blocks().collect();
    for bit in 0..blocks[1].len() * 8 {
        let mut block = blocks[1].to_vec();
        block[bit / 8] ^= 1 << (bit % 8);
        assert!(matches!(opener.open_block(1, &mut block), Err(ClipCipherError::NotGenuine(1))));
    }
    for length in 0..blocks[1].len() {
        assert!(opener.open_block(1, &mut blocks[1][..length].to_vec()).is_err());
    }
    for (index, block) in [(0, &blocks[1]), (2, &blocks[1]), (u32::MAX, &blocks[0]), (256, &blocks[1])] {
        assert!(opener.open_block(index, &mut block.to_vec()).is_err());
    }
    let mut foreign = other.blocks().next().unwrap().to_vec();
    assert!(opener.open_block(0, &mut foreign).is_err());
}

#[test]
fn no_two_clips_share_a_key() {
    let seal = || *SealedClip::seal(&wav(3), 100).unwrap().key().as_bytes();
    let keys: std::collections::HashSet<_> = (0..1000).map(|_| seal()).collect();
    assert_eq!(keys.len(), 1000);
}

/// The expected bytes were computed with another library (OpenSSL, through Python's `cryptography`).
#[test]
fn a_block_is_aes_256_gcm_with_its_index_as_nonce() {
    let key = ClipKey::from_bytes([0x42; 32]);
    let cipher = key.cipher().unwrap();
    let seal = |index| {
        let mut block = b"attention please".to_vec();
        cipher.seal_in_place_append_tag(nonce(index), Aad::empty(), &mut block).unwrap();
        crate::clip::hex(&block)
    };
    assert_eq!(nonce(0x01020304).as_ref(), &[0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4]);
    assert_eq!(seal(0), "95c68b9c32f8ec88f76f3b6354eac634477a3d3b617138f5ddae5ee7b856f307");
    assert_eq!(seal(1), "29ffa071b12ffaca27e7b4e30595101475ab84faa5d45fb99cc7d591be6a286f");
}
