//! Replays the seeds of the fuzz targets, and inputs that these once found, through the same functions.

#[path = "../../fuzz/entries.rs"]
mod entries;

fn replay(target: &str, entry: fn(&[u8])) {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut seeds = 0;
    for seed in std::fs::read_dir(folder).unwrap() {
        entry(&std::fs::read(seed.unwrap().path()).unwrap());
        seeds += 1;
    }
    assert!(seeds > 0, "no seeds for {target}");
}

#[test]
fn invite_seeds() {
    replay("invite", entries::invite);
}

#[test]
fn handshake_seeds() {
    replay("handshake", entries::handshake);
}

#[test]
fn header_seeds() {
    replay("header", entries::header);
}

#[test]
fn station_message_seeds() {
    replay("station_message", entries::station_message);
}

#[test]
fn announcer_message_seeds() {
    replay("announcer_message", entries::announcer_message);
}

#[test]
fn clip_header_seeds() {
    replay("clip_header", entries::clip_header);
}

#[test]
fn frames_seeds() {
    replay("frames", entries::frames);
}

#[test]
fn identity_seeds() {
    replay("identity", entries::identity);
}

#[test]
fn heard_seeds() {
    replay("heard", entries::heard);
}

#[test]
fn known_seeds() {
    replay("known", entries::known);
}

#[test]
fn pins_seeds() {
    replay("pins", entries::pins);
}

#[test]
fn outbox_seeds() {
    replay("outbox", entries::outbox);
}

#[test]
fn archive_log_seeds() {
    replay("archive_log", entries::archive_log);
}

#[test]
fn talkback_header_seeds() {
    replay("talkback_header", entries::talkback_header);
}

#[test]
fn talked_seeds() {
    replay("talked", entries::talked);
}

#[test]
fn sound_file_seeds() {
    replay("sound_file", entries::sound_file);
}
