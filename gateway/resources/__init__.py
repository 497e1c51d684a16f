"""The routes of documents, counters, locks, copies, buckets, designs and views."""
