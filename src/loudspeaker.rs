//! The loudspeaker seam: a real device or a folder takes a clip and an instant.
