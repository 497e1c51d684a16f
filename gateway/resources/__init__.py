"""What has a path: the routes of documents, counters, locks, copies, buckets, designs and views."""
