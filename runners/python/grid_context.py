"""The handler's second argument."""
from time import monotonic


class Context:
    def __init__(self, settings, request_id, function_name, deadline):
        self._deadline = deadline
        self.request_id = self.requestId = request_id
        self.aws_request_id = self.awsRequestId = request_id
        self.function_name = self.functionName = function_name
        self.function_version = self.functionVersion = settings.deployment
        self.memory_limit_in_mb = self.memoryLimitInMB = settings.memory_mb
        arn = "grid:function:" + function_name
        self.invoked_function_arn = self.invokedFunctionArn = arn
        self.log_group_name = self.logGroupName = function_name
        self.log_stream_name = self.logStreamName = settings.deployment
        self.callbackWaitsForEmptyEventLoop = True

    def get_remaining_time_in_millis(self):
        return max(0, int((self._deadline - monotonic()) * 1000))

    getRemainingTimeInMillis = get_remaining_time_in_millis

    def __repr__(self):
        return "<Context of request %s>" % self.request_id
