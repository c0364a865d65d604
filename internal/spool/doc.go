// Package spool is a durable queue's backing: an append-only log of
// checksummed records in segment files in one folder, whose records finish in
// any order.
//
// A record is appended, read by its [Ref], and marked done. [Open] hands back
// every record that is not done, in the order in which they were appended.
// The guarantee is at least once: a record that a crash brings back although
// it was done is possible, one that was durable and is gone is not.
//
// # Durability
//
// [Spool.Append] copies a record into memory and returns. One goroutine, the
// writer, does all writing, in large pieces:
//
//   - an interval (100 ms by default): it writes and syncs (fsync) what has
//     come in at most that long after it came in, earlier when half of the
//     buffer is in use. A crash of the process or the machine costs what was
//     appended within the last interval and the fsync then under way.
//   - [Always]: it writes and syncs at once. One fsync is in flight at a time
//     and the next one covers everything appended meanwhile, so concurrent
//     appenders share it; where several do, it begins when as many wait for it
//     as for the last one, at most that one's time later. [Spool.Wait] returns
//     when a record is covered: such a record survives any crash.
//   - [Never]: it writes within 100 ms and leaves syncing to the operating
//     system. A crash of the process costs what was appended within the last
//     100 ms, one of the machine anything that the system had not written;
//     what lies behind a hole is still found.
//
// Marks are written within 100 ms of [Spool.Done] (or the interval, if it is
// longer) and synced soon after, two segments' marks at a time, except under
// Never. A crash therefore brings back the records done within about the last
// interval, or the last seconds where records of many segments finish at
// once. [Spool.Close] writes and syncs everything: after it no finished record
// comes back.
//
// # A full or failing disk
//
// Bytes stay in memory until they are synced (under Never: written). After a
// failed write or fsync the same bytes are written again at the same place,
// ten times a second, so a partial write leaves no trace and pages that the
// kernel dropped after a failed fsync are made dirty again before the next
// one. Meanwhile records are accepted and read from memory until the buffer
// is full, then refused with [ErrBehind]; records that are done make room in
// it. Options.Notify and [Spool.Err] tell of the failure and of its end.
// Records that are still in memory when the process ends are lost; Close says
// so.
//
// # Size
//
// Options.MaxBytes bounds the folder: the segments with their finished
// records, the marks and 8 KiB for each segment, which covers rounding up to
// blocks. It is exceeded by at most a segment while finished ones cannot be
// removed, and another one during a compaction. A segment is a 64th of MaxBytes,
// but at most 64 MiB and at least 64 KiB or a quarter of MaxBytes. A record that
// is too long for a segment has one of its own.
//
// A segment goes away when all its records are done, before anything more is
// written. Where one record in two or more of a segment is done and the folder is
// three quarters full, the segment is compacted: the rest moves to a new file,
// keeping its references and its place in the order. So records that stay for
// long, like those of a client whose deliveries fail, cost about their own size
// and 8 KiB for each segment, and cannot fill the folder with what is long done.
//
// # Memory
//
// At most 16 MiB of buffer and the record that exceeds it, allocated as needed
// in pieces of 256 KiB (longer for a longer record); some 200 bytes for each segment;
// 8 bytes for each record of a compacted segment, and for each mark until it
// is written. Recovery needs another 256 KiB, or the longest record, and
// 4 bytes for each mark of one segment.
//
// # Format
//
// Integers are little-endian, checksums CRC-32C (Castagnoli). The folder holds
//
//	spool.lock                         locked while the spool is open
//	SEQ-GEN-SEED.log                   a segment
//	SEQ-GEN-SEED.done                  its marks
//	SEQ-GEN-SEED.tmp                   a compaction that was not finished
//
// SEQ is the segment's number, 10 hex digits, counting up from 1. GEN, 2 hex
// digits, counts its compactions: of two files with one SEQ the one with the
// higher GEN is valid. SEED, 16 hex digits, is a random number made when the
// spool was opened. It is part of all checksums, so that the content of a
// record cannot pass for a record, nor what a file held before.
//
// A segment is a sequence of records and nothing else. Each begins at a
// multiple of 8 bytes:
//
//	0   uint32  checksum of the header, which is: SEQ as uint64, bytes 4 to 15
//	4   uint32  checksum of the content
//	8   uint32  length of the content in bytes
//	12  uint32  position: the offset at which the record was first written
//	16          content, then 0 to 7 bytes, zero, up to a multiple of 8
//
// The header's checksum starts from the low half of SEED, the content's from
// the high half, in place of 0, in the sense of [hash/crc32.Update]. In
// generation 0 a record's position is its offset in the file; in later ones
// positions go up and are never below the offset. A [Ref] is SEQ·2²⁴ plus the
// position divided by 8.
//
// Marks are entries of 8 bytes: the position of the record that is done as
// uint32, and the checksum, starting from the low half of SEED, of SEQ as
// uint64, the position as uint32 and "done".
//
// A reader goes from record to record. Where a content's checksum is wrong it
// skips the record, whose length its header vouches for. Where a header's is
// wrong it tries every multiple of 8 from there, so one flipped bit costs one
// record. What follows a segment's last good record is a torn tail and is cut
// off. Recovered segments are not appended to: each Open begins a new one.
//
// No file has a version: another format must have other suffixes. Files whose
// names are not of this form stay as they are.
package spool
