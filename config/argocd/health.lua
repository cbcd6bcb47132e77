-- How Argo CD sees the health of Redoubt's resources: one script for all kinds. `obj` is the resource; what is returned is its health.
--
-- Healthy is what its operator says is ready, of the generation that is in the cluster. Argo CD waits while something is Progressing, and
-- shows what is Degraded in red with the operator's own words.

local conditions = {}
if obj.status ~= nil and obj.status.conditions ~= nil then
  for _, condition in ipairs(obj.status.conditions) do
    conditions[condition.type] = condition
  end
end

local function is(type, status)
  return conditions[type] ~= nil and conditions[type].status == status
end

local function health(status, type, otherwise)
  local message = conditions[type] ~= nil and conditions[type].message or ""
  if message == "" then
    message = otherwise
  end
  return { status = status, message = message }
end

-- A status of an older generation says nothing of this one.
if obj.status == nil or obj.status.observedGeneration ~= obj.metadata.generation then
  return { status = "Progressing", message = "Waiting for the operator" }
end
-- A rule that does not compile, or whose own tests fail; a second Siem in a namespace.
if is("Accepted", "False") then
  return health("Degraded", "Accepted", "Not accepted")
end
-- Of a Siem: something that should run does not.
if is("Degraded", "True") then
  return health("Degraded", "Degraded", "Degraded")
end
if is("Progressing", "True") then
  return health("Progressing", "Progressing", "Being changed")
end
if is("Ready", "True") then
  return health("Healthy", "Ready", "Ready")
end
return health("Progressing", "Ready", "Not ready yet")
