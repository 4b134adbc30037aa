//! Buffer attributes that suit the server's arithmetic better than those `cpal` chooses.

use crate::protocol;

/// With `adjust_latency`, the server gives the sink half of the amount by which the target length exceeds two requests
/// (`fix_playback_buffer_attr` of PulseAudio's `protocol-native.c`). `cpal` asks for a target of exactly two requests,
/// so the sink runs at its minimum latency: half a millisecond, 2,000 wake-ups a second, and a monitor chopped into
/// pieces that are as short. Requests three quarters as long leave the sink an eighth of the whole, which does not change.
pub(super) fn give_the_sink_its_share(params: &mut protocol::PlaybackStreamParams) {
    let frame_bytes = frame_bytes(&params.sample_spec);
    let attr = &mut params.buffer_attr;
    let is_double = attr.target_length == attr.minimum_request_length.saturating_mul(2);
    if params.flags.adjust_latency && is_double && attr.target_length != u32::MAX {
        let shorter = attr.minimum_request_length / 4 * 3 / frame_bytes * frame_bytes;
        attr.minimum_request_length = shorter.max(frame_bytes);
    }
}

/// `cpal` sets a recording's queue to one fragment, so a block that arrives before the previous one was sent is
/// silently lost. The server's own default, the longest queue, loses nothing.
pub(super) fn leave_room_for_fragments(params: &mut protocol::RecordStreamParams) {
    params.buffer_attr.max_length = u32::MAX;
}

fn frame_bytes(spec: &protocol::SampleSpec) -> u32 {
    (spec.format.bytes_per_sample() as u32 * u32::from(spec.channels)).max(1)
}
