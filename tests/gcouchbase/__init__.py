"""Tests of the SDK's vocabulary: exceptions, results, formats, arguments."""
