//! The microphone seam: a real device or a file gives a clip's worth of sound.
