//! Blocks and their compressed frames.

use block::{BLOCK_SIZE, Digest};
use zstd::bulk::{Compressor, Decompressor};

use crate::Error;
use crate::format::Codec;

/// [`BLOCK_SIZE`] as a length in memory.
pub(crate) const BLOCK_LEN: usize = BLOCK_SIZE as usize;
/// Largest compressed frame that is kept: a block that gains less than 3 % is kept as it is.
const MAX_COMPRESSED: usize = BLOCK_LEN - BLOCK_LEN * 3 / 100;

/// Changes a frame after it was compressed: how tests stand in for a faulty processor.
pub type FrameFault = fn(&mut Vec<u8>);

/// Compresses blocks, and reads each frame back. One for each thread; contexts and buffers are kept.
pub(crate) struct Encoder {
    compressor: Compressor<'static>,
    decoder: Decoder,
    back: Vec<u8>,
    fault: Option<FrameFault>,
}

impl Encoder {
    pub(crate) fn new(level: i32, fault: Option<FrameFault>) -> std::io::Result<Self> {
        let compressor = Compressor::new(level)?;
        Ok(Self { compressor, decoder: Decoder::new()?, back: vec![0; BLOCK_LEN], fault })
    }

    /// Makes the frame of a whole block in `frame`, whose old bytes go.
    pub(crate) fn encode(&mut self, id: Digest, block: &[u8], frame: &mut Vec<u8>) -> Result<Codec, Error> {
        frame.clear();
        frame.reserve(BLOCK_LEN);
        // A frame that does not fit is an error to zstd, and a block to keep as it is to us.
        let fits = self.compressor.compress_to_buffer(block, frame).is_ok_and(|len| len <= MAX_COMPRESSED);
        if !fits {
            frame.clear();
            frame.extend_from_slice(block);
        }
        if let Some(fault) = self.fault {
            fault(frame);
        }
        if !fits {
            return if frame == block { Ok(Codec::Raw) } else { Err(Error::Compression { id }) };
        }
        let decoded = self.decoder.decode(Codec::Zstd, frame, &mut self.back);
        if decoded.is_err() || self.back != block {
            return Err(Error::Compression { id });
        }
        Ok(Codec::Zstd)
    }
}

/// Reads frames. One for each thread.
pub(crate) struct Decoder {
    decompressor: Decompressor<'static>,
}

impl Decoder {
    pub(crate) fn new() -> std::io::Result<Self> {
        Ok(Self { decompressor: Decompressor::new()? })
    }

    /// Fills `block`, which is a whole one, from its frame; says what is wrong with the frame. The id is not checked.
    pub(crate) fn decode(
        &mut self,
        codec: Codec,
        frame: &[u8],
        block: &mut [u8],
    ) -> Result<(), &'static str> {
        match codec {
            Codec::Raw if frame.len() == block.len() => block.copy_from_slice(frame),
            Codec::Raw => return Err("it is not of a block's length"),
            Codec::Zstd => match self.decompressor.decompress_to_buffer(frame, block) {
                Ok(len) if len == block.len() => {}
                Ok(_) => return Err("it is shorter than a block"),
                Err(_) => return Err("it does not decompress"),
            },
        }
        Ok(())
    }
}

/// Whether all bytes are zero, looked at in words.
pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    let (chunks, rest) = bytes.as_chunks::<64>();
    chunks.chunks(64).all(|run| {
        run.iter().fold([0u8; 64], |mut seen, chunk| {
            seen.iter_mut().zip(chunk).for_each(|(seen, byte)| *seen |= byte);
            seen
        }) == [0; 64]
    }) && rest.iter().all(|byte| *byte == 0)
}
